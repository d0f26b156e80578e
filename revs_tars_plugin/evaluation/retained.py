"""What must still be there."""

from __future__ import annotations

from .run import EvaluationRun


def measure_retained(run: EvaluationRun) -> None:
    """Measures specificity: the share of retained secrets that greedy decoding still gives."""
    if run.retain:
        run.summary["specificity"] = run.share_generated(run.retain)
