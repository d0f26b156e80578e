"""The figures of benchmarks: every method by what it costs and how near it comes to a model that never learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..formatting import readable
from ..methods import METHODS
from . import plots
from .figures import Figure

_UNEDITED, _RETAIN_ONLY = "unedited", "retain-only model"
_NOT_METHODS = (_UNEDITED, _RETAIN_ONLY)
_QUALITY, _UTILITY = "forget_quality", "model_utility"
# From this p-value on TOFU says that a model cannot be told from one that never learned.
_PASSES = 0.05


@dataclass(frozen=True)
class _Axis:
    """One figure of a row as an axis.

    Attributes:
        key: Its name.
        label: What the axis says.
        better: Which direction is good.
    """

    key: str
    label: str
    better: str


# By the first of the keys that a benchmark measures: what is reached, and what it costs.
_REACHED = (
    _Axis("forget_quality", "forget quality, p (up is better)", "higher"),
    _Axis("exposure, top", "exposure, bits (near the dashed line is good)", "near"),
    _Axis("concept", "probability of the name (down is better)", "lower"),
)
_COSTS = (
    _Axis("model_utility", "model utility (right is better)", "higher"),
    _Axis("kl_median", "cost: median KL on ordinary text, nats (left is better)", "lower"),
)
_DISTANCE = _Axis("distance", "distance from a model that never learned it (down is better)", "lower")
_SECONDS = _Axis("seconds", "seconds to forget (left is better)", "lower")


def benchmark_figures(content: Mapping[str, Any], number: int) -> list[Figure]:
    """Returns the plots of one benchmark: forgetting against cost, and nearness to the retain-only model against time.

    Args:
        content: A result of kind "benchmark".
        number: Which one of the page it is, for the names of the plots.
    """
    rows: Mapping[str, Mapping[str, float]] = content["rows"]
    pairs = []
    reached, cost = _measured(_REACHED, rows), _measured(_COSTS, rows)
    if reached and cost:
        pairs.append(("forgetting against cost", cost, reached))
    if _measured((_DISTANCE,), rows):
        pairs.append(("nearness against time", _SECONDS, _DISTANCE))
    figures = [_figure(content, f"pareto-{number}-{place}", *pair) for place, pair in enumerate(pairs)]
    return [drawn for drawn in figures if drawn is not None]


def _measured(axes: tuple[_Axis, ...], rows: Mapping[str, Mapping[str, float]]) -> _Axis | None:
    """The first axis that any method has a figure of."""
    methods = [row for name, row in rows.items() if name not in _NOT_METHODS]
    return next((axis for axis in axes if any(axis.key in row for row in methods)), None)


def _figure(content: Mapping[str, Any], name: str, title: str, cost: _Axis, reached: _Axis) -> Figure | None:
    rows = content["rows"]
    measured = [
        (label, row[cost.key], row[reached.key])
        for label, row in rows.items()
        if cost.key in row and reached.key in row
    ]
    points = [point for point in measured if point[0] not in _NOT_METHODS]
    if not points:
        return None
    levels = {label: rows[label][reached.key] for label in _NOT_METHODS if reached.key in rows.get(label, {})}
    best = _best(points, reached, levels.get(_RETAIN_ONLY))
    # A cost of nothing has no place on a logarithmic axis, so models that cost nothing are lines there.
    corners = [point for point in measured if point[0] in _NOT_METHODS and cost.key == _UTILITY]
    lines = {} if corners else levels
    if reached.key == _QUALITY:
        lines = {**lines, "p = 0.05": _PASSES}
    return Figure(
        name=name,
        title=f"{content['benchmark']}: {title}",
        svg=plots.trade_off(
            name,
            [*points, *corners],
            cost=cost.label,
            gain=reached.label,
            marked=[label for label, *_ in points if label.partition(":")[0] in METHODS],
            levels=lines,
            logarithmic=cost.key != _UTILITY,
            logarithmic_gain=reached.key == _QUALITY,
        ),
        words=f"{len(points)} methods on {content['forgotten']} records to forget; best by {reached.key} is {best[0]} "
        f"({readable(best[2])}) at {cost.key} {readable(best[1])}.",
        headings=("method", cost.key, reached.key),
        rows=[
            *((label, readable(paid), readable(score)) for label, paid, score in points),
            *((label, readable(rows[label].get(cost.key)), readable(score)) for label, score in levels.items()),
        ],
    )


def _best(points: list[tuple[str, float, float]], reached: _Axis, gold: float | None) -> tuple[str, float, float]:
    if reached.better == "near" and gold is not None:
        return min(points, key=lambda point: abs(point[2] - gold))
    return max(points, key=lambda point: point[2]) if reached.better == "higher" else min(points, key=lambda p: p[2])
