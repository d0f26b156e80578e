"""What the edit cost on ordinary text."""

from __future__ import annotations

from .run import EvaluationRun


def measure_cost(run: EvaluationRun) -> None:
    """Compares the model's next-token distributions with those of the model before the edit."""
    if run.text is not None:
        cost = run.text().compare(run.model)
        run.summary.update(cost.summary())
        run.divergences = cost.divergences
