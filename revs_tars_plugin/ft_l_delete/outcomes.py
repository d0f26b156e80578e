"""What the training came to, secret by secret."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class TrainingOutcome:
    """What the training came to.

    Attributes:
        request: The request's place in the call.
        before: Mean probability of its tokens before.
        after: The same at the end.
        goal: What it must be at most.
        steps: Passes over the requests, of all of them together.
    """

    request: int
    before: float
    after: float
    goal: float
    steps: int

    @property
    def reached(self) -> bool:
        """Whether the tokens became as unlikely as the settings want them."""
        return self.after <= self.goal

    def counted_on(self, earlier: int) -> TrainingOutcome:
        """Returns the same of a call that had so many requests before this one's."""
        return replace(self, request=self.request + earlier)

    def row(self) -> dict[str, Any]:
        """Returns its line of a table."""
        return {
            "secret": self.request,
            "probability before": self.before,
            "probability after": self.after,
            "steps": self.steps,
            "reached": self.reached,
        }
