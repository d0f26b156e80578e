"""One benchmark, several ways to forget it: each row is the same model after one of them."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..errors import InputError
from ..evaluation.exposure import Exposure
from ..evaluation.integrity import OrdinaryText
from ..evaluation.likelihood import compared
from ..evaluation.peak_memory import peak_memory
from ..evaluation.scores import vocabulary_size
from ..model.processes import shared_in_turn
from .benchmark import Benchmark, Scores
from .records import QUESTION, SECRET, Record

UNEDITED, RETAIN_ONLY = "unedited", "retain-only model"
# Of so many secrets at most exposure is measured: each takes 64 answers.
_EXPOSED = 40

# Edits a model in place; what it returns, if anything, is measured in its stead: the model within an adapter.
Forget = Callable[[nn.Module], "nn.Module | None"]


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        name: How it came to be.
        scores: The benchmark's own metrics, with the figure of every record.
        costs: Exposure of the answers, and what it cost on ordinary text; see `evaluate_unlearning`.
        seconds: What forgetting took; None where nothing was forgotten.
        error: Why it could not be done, in one line.
        peak_mib: The memory that it took beside the model, MiB.
    """

    name: str
    scores: Scores
    costs: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    peak_mib: float | None = None
    error: str | None = None

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> Row:
        """Returns a row of its fields as JSON has them.

        Raises:
            TypeError, ValueError, KeyError or AttributeError: When it is something else.
        """
        scores = {metric: (mean, records) for metric, (mean, records) in content["scores"].items()}
        return cls(**{**content, "scores": scores})

    def figures(self, gold: Row | None = None, compared: Collection[str] = ()) -> dict[str, float]:
        """Returns its figures by name, with the distance from the retain-only model in compared metrics."""
        figures = {name: mean for name, (mean, _) in self.scores.items()}
        if gold is not None and compared and self.scores:
            figures["distance"] = distance(self.scores, gold.scores, compared)
        figures.update(self.costs)
        if self.seconds is not None:
            figures["seconds"] = self.seconds
        if self.peak_mib is not None:
            figures["peak_mib"] = self.peak_mib
        return figures


def distance(scores: Scores, gold: Scores, compared: Collection[str]) -> float:
    """Returns how far two models are from each other: the mean difference over those metrics that both have."""
    names = [name for name in compared if name in scores and name in gold]
    return statistics.fmean(abs(scores[name][0] - gold[name][0]) for name in names)


def side_by_side(
    learned: nn.Module,
    retain_only: nn.Module | None,
    tok: Any,
    benchmark: Benchmark,
    ways: Mapping[str, Forget],
    *,
    text: Sequence[str] = (),
    seed: int = 0,
    measured: Mapping[str, Row] | None = None,
) -> Iterator[Row]:
    """Yields a model that never learned what is to be forgotten, the model as it is, and it after each way.

    Args:
        learned: A model that learned all of it; stays as it is.
        retain_only: A model that learned the records to retain alone; None where nobody can have one.
        tok: The tokenizer of both.
        benchmark: What is measured.
        ways: By its name what makes a model forget, in place.
        text: Ordinary texts to measure the cost on; none, no cost.
        seed: Seed of the made-up answers that exposure compares with.
        measured: Rows by name that are there already; they are yielded as they are, before the other ways.
    """
    measured = measured or {}
    reference = OrdinaryText.of(learned, tok, text) if text else None
    asked = _spread([record for record in benchmark.split.forget if record.kind in (QUESTION, SECRET)])
    gold: Scores | None = None

    def row(name: str, model: nn.Module, seconds: float | None = None, mib: float | None = None) -> Row:
        costs = _exposures(model, tok, asked, seed)
        if reference is not None and model is not retain_only:
            costs.update(reference.compare(model).summary())
        scores = benchmark.scores(model, tok)
        reference_scores = scores if model is retain_only else gold
        if reference_scores is not None:
            scores = {**scores, **benchmark.against(scores, reference_scores)}
        return Row(name, scores, costs, seconds, mib)

    if retain_only is not None:
        if vocabulary_size(retain_only) != vocabulary_size(learned):
            raise InputError(
                f"The retain-only model has a vocabulary of {vocabulary_size(retain_only)}, the one that learned all "
                f"{vocabulary_size(learned)}; take two of one base."
            )
        first = measured.get(RETAIN_ONLY) or row(RETAIN_ONLY, retain_only)
        gold = first.scores
        yield first
    yield measured.get(UNEDITED) or row(UNEDITED, learned)

    def forgotten(name: str) -> Row:
        model, forget = copy.deepcopy(learned), ways[name]
        try:
            if hasattr(forget, "prepare"):
                forget.prepare(model)
            start = time.perf_counter()
            with peak_memory() as peak:
                edited = forget(model)
            seconds = time.perf_counter() - start
        except InputError:
            raise
        except Exception as error:  # whatever another's code raises is a row of the table
            reason = " ".join(str(error).split()) or type(error).__name__
            return Row(name, {}, error=f"{type(error).__name__}: {reason[:200]}")
        return row(name, model if edited is None else edited, seconds, peak.mib)

    yield from (measured[name] for name in ways if name in measured)
    yield from shared_in_turn(forgotten, [name for name in ways if name not in measured])


def _spread(records: Sequence[Record]) -> Sequence[Record]:
    return records[:: max(1, -(-len(records) // _EXPOSED))]


def _exposures(model: nn.Module, tok: Any, records: Sequence[Record], seed: int) -> dict[str, float]:
    comparisons = compared(model, tok, [r.prompt for r in records], [r.secret or r.answer for r in records], seed=seed)
    found = [Exposure.of(comparison) for comparison in comparisons if comparison.others]
    if not found:
        return {}
    return {f"exposure, {end}": statistics.fmean(getattr(each, end) for each in found) for end in ("top", "bottom")}
