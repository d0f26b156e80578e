"""One benchmark, several ways to forget it: each row is the same model after one of them."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..evaluation.exposure import Exposure
from ..evaluation.integrity import OrdinaryText
from ..evaluation.likelihood import compared
from ..evaluation.peak_memory import peak_memory
from .lume_scores import Scores, lume_scores
from .records import Record, Split

UNEDITED, RETAIN_ONLY = "unedited", "retain-only model"
# Of so many questions at most exposure is measured: each takes 64 answers.
_COMPARED = 40
# Derived from the others, so no measure of its own of how near two models are.
_DERIVED = ("task_aggregate", "membership_score")

Forget = Callable[[nn.Module], None]


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        name: How it came to be.
        scores: The benchmark's own metrics, with the figure of every record.
        costs: Exposure of the answers, and what it cost on ordinary text; see `evaluate_unlearning`.
        seconds: What forgetting took; None where nothing was forgotten.
        peak_mib: The memory that it took beside the model, MiB.
    """

    name: str
    scores: Scores
    costs: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    peak_mib: float | None = None

    def figures(self, gold: Row | None = None) -> dict[str, float]:
        """Returns its figures by name, with its distance from the retain-only model where that is given."""
        figures = {name: mean for name, (mean, _) in self.scores.items()}
        if gold is not None:
            figures["distance"] = distance(self.scores, gold.scores)
        figures.update(self.costs)
        if self.seconds is not None:
            figures["seconds"] = self.seconds
        if self.peak_mib is not None:
            figures["peak_mib"] = self.peak_mib
        return figures


def distance(scores: Scores, gold: Scores) -> float:
    """Returns how far two models are from each other: the mean difference over the benchmark's own metrics."""
    return statistics.fmean(abs(scores[name][0] - gold[name][0]) for name in scores if name not in _DERIVED)


def side_by_side(
    learned: nn.Module,
    retain_only: nn.Module,
    tok: Any,
    split: Split,
    ways: Mapping[str, Forget],
    *,
    text: Sequence[str] = (),
    seed: int = 0,
) -> Iterator[Row]:
    """Yields the model as it is, one that never learned what is to be forgotten, and the model after each way.

    Args:
        learned: A model that learned all of it; stays as it is.
        retain_only: A model that learned the records to retain alone.
        tok: The tokenizer of both.
        split: The benchmark's records.
        ways: By its name what makes a model forget, in place.
        text: Ordinary texts to measure the cost on; none, no cost.
        seed: Seed of the made-up answers that exposure compares with.
    """
    reference = OrdinaryText.of(learned, tok, text) if text else None
    questions = [record for record in split.forget if record.kind == "question"]
    asked = questions[:: max(1, -(-len(questions) // _COMPARED))]

    def row(name: str, model: nn.Module, seconds: float | None = None, mib: float | None = None) -> Row:
        costs = _exposures(model, tok, asked, seed)
        if reference is not None and model is not retain_only:
            costs.update(reference.compare(model).summary())
        return Row(name, lume_scores(model, tok, split), costs, seconds, mib)

    yield row(UNEDITED, learned)
    yield row(RETAIN_ONLY, retain_only)
    for name, forget in ways.items():
        model = copy.deepcopy(learned)
        start = time.perf_counter()
        with peak_memory() as peak:
            forget(model)
        yield row(name, model, time.perf_counter() - start, peak.mib)


def _exposures(model: nn.Module, tok: Any, records: Sequence[Record], seed: int) -> dict[str, float]:
    comparisons = compared(model, tok, [r.prompt for r in records], [r.answer for r in records], seed=seed)
    found = [Exposure.of(comparison) for comparison in comparisons if comparison.others]
    if not found:
        return {}
    return {f"exposure, {end}": statistics.fmean(getattr(each, end) for each in found) for end in ("top", "bottom")}
