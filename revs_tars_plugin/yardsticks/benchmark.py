"""What every benchmark has: what a model learns, what methods are shown, and how a model is measured."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from typing import Any, Protocol

from torch import nn

from .records import Record, Split

# For each metric its figure, and that of every record: what open-unlearning calls `value_by_index`.
Scores = dict[str, tuple[float, dict[str, dict[str, float]]]]


class Benchmark(Protocol):
    """One benchmark with its published, or drawn, records.

    Its `repr` holds all that its figures depend on: rows that were kept are taken again where it is the same.
    """

    @property
    def name(self) -> str:
        """What result files and tables call it."""

    @property
    def learned(self) -> tuple[Record, ...]:
        """What a base learns first; empty where the model that is named knows it already."""

    @property
    def kept(self) -> tuple[Record, ...]:
        """The part of that which the retain-only model learns."""

    @property
    def split(self) -> Split:
        """What methods are shown: records to forget and to retain."""

    @property
    def compared(self) -> Collection[str]:
        """The metrics that a distance from the retain-only model is made of."""

    def scores(self, model: nn.Module, tok: Any) -> Scores:
        """Measures one model."""

    def against(self, scores: Scores, gold: Scores) -> Scores:
        """Returns the metrics that compare a model's scores with those of the retain-only model."""


def mean_score(
    records: Sequence[Record], values: Sequence[float], key: str
) -> tuple[float, dict[str, dict[str, float]]]:
    """Returns a metric as the mean over records, with each one's figure under a key."""
    return statistics.fmean(values), by_index(records, values, key)


def by_index(records: Sequence[Record], values: Sequence[float], key: str) -> dict[str, dict[str, float]]:
    """Returns the figure of every record, by its identifier."""
    return {record.identifier: {key: value} for record, value in zip(records, values, strict=True)}
