"""What became of each concept, measured on the model itself."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

from ..edits.edit_set import EditSet

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConceptOutcome:
    """What became of one concept.

    Attributes:
        name: The concept.
        requests: Positions of its requests in the call.
        known: Whether the model gave the name before, on any prompt, with `min_probability` or more.
        before: The name's probability after each of its prompts before the edit.
        after: The same with all edits of the call up to this one in place, this one's included.
        goal: The probability it had to fall below; None where the way to the name was to be left.
        reversed: How many vectors were reversed; 0 where the concept was unknown or rolled back.
        detectors: How many neurons find the name now and take facts behind it away, one for each of its spellings.
        undetected: Spellings that none finds, though facts behind the name were to go.
        edits: What was changed for this concept alone; it can be undone by itself.
        seconds: Time spent on it.
    """

    name: str
    requests: tuple[int, ...]
    known: bool
    before: tuple[float, ...]
    after: tuple[float, ...]
    goal: float | None
    reversed: int
    detectors: int
    undetected: int
    edits: EditSet
    seconds: float

    @property
    def reached(self) -> bool:
        """Whether the name is below the goal on every prompt, where that is asked for, and found in every spelling."""
        lost = max(self.after) < self.goal if self.goal is not None else self.detectors > 0
        return lost and not self.undetected

    def counted_on(self, earlier: int) -> ConceptOutcome:
        """Returns the same of a call that had so many requests before this one's."""
        return replace(self, requests=tuple(index + earlier for index in self.requests))

    def row(self) -> dict[str, Any]:
        """Returns its line of a table; the name in it is masked by whoever shows it."""
        return {
            "concept": self.name,
            "prompts": len(self.before),
            "known": self.known,
            "probability before": max(self.before),
            "probability after": max(self.after),
            "vectors reversed": self.reversed,
            "detectors": self.detectors,
            "reached": self.reached,
        }


def report(outcome: ConceptOutcome) -> None:
    """Logs where a concept was unknown, or its goal was missed."""
    if not outcome.known:
        LOG.warning(
            'TARS: the model does not know "%s" (probability %.3g on its prompts); nothing was changed for it.',
            outcome.name,
            max(outcome.before),
        )
    elif outcome.goal is not None and not max(outcome.after) < outcome.goal:
        LOG.warning(
            'TARS: "%s" ended at probability %.3g instead of %.3g; %s. Raise n_edits or reversal_scale.',
            outcome.name,
            max(outcome.after),
            outcome.goal,
            f"its {outcome.reversed} reversals were kept" if outcome.reversed else "its reversals were rolled back",
        )
