"""The figures of the report: each a plot, what it says in words, and its numbers as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..evaluation.likelihood import CANDIDATES
from ..evaluation.metrics import METRICS, Question
from ..formatting import readable
from ..methods import METHODS
from . import plots


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A plot with what it says in words, and its numbers as a table.

    Attributes:
        name: The name that the page's identifiers are made with.
        title: Its heading.
        svg: The drawing.
        words: What it shows, in one sentence or two.
        headings: The headings of the table.
        rows: The table's rows.
    """

    name: str
    title: str
    svg: str
    words: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class _BarPlot:
    """A plot of the metrics that answer one question."""

    name: str
    title: str
    question: Question
    label: str


# Told in bits; the other figures that neither direction is good of are shares, but for PrivLeak, a difference.
_EXPOSED = "exposure, "
_DIFFERENCES = ("privleak",)
# The methods of this package, which a comparison marks.
_PUBLISHED = frozenset(name for name, method in METHODS.items() if method.paper is not None)
_HIDDEN = _BarPlot("hiding", "Hidden under attack, k = {k}", "hidden", "1: hidden, 0: plain")
_COMES_OUT = _BarPlot("coming-out", "What still comes out", "comes out", "0: nothing, 1: everything")


def evaluation_figures(content: Mapping[str, Any]) -> list[Figure]:
    """Returns the plots that an evaluation gives; those that nothing was measured for are left out."""
    moments = {moment: content[moment] for moment in ("before", "after") if moment in content}
    after = content["after"]
    k = after["settings"]["k"]
    summaries = summaries_of(content)
    figures = [
        _exposures(summaries),
        _likenesses(summaries),
        _ranks(moments, k),
        *(_changes(edit, f"layers-{number}") for number, edit in enumerate(content["edits"], 1)),
        _bars(_HIDDEN, summaries, k),
        _bars(_COMES_OUT, summaries, k),
        _divergences(after),
    ]
    return [drawn for drawn in figures if drawn is not None]


def _ranks(moments: Mapping[str, Mapping[str, Any]], k: int) -> Figure | None:
    measured = {moment: report["ranks"] for moment, report in moments.items() if report["ranks"]}
    if not measured:
        return None
    layers = range(len(measured["after"][0]))
    middle = {
        moment: [int(plots.median([ranks[layer] for ranks in secrets])) for layer in layers]
        for moment, secrets in measured.items()
    }
    said = [f"{moment} the edit" if len(middle) > 1 else "now" for moment in middle]
    words = "; ".join(
        f"{when}: {values[0]} in the first layer, {min(values)} at the least, {values[-1]} in the last"
        for when, values in zip(said, middle.values(), strict=True)
    )
    return Figure(
        name="ranks",
        title="Rank of the secret at every layer",
        svg=plots.ranks_by_layer(measured, k),
        words=f"Median over {len(measured['after'])} secrets of the rank of the best-hidden token, by the logit lens; "
        f"{words}. A rank of {k} or more counts as hidden.",
        headings=("layer", *(f"median rank {moment}" for moment in middle)),
        rows=[(layer, *(values[layer] for values in middle.values())) for layer in layers],
    )


def _changes(edit: Mapping[str, Any], name: str) -> Figure | None:
    layers = edit["layers"]
    if not layers:
        return None
    unit = "neurons" if any(changed["neurons"] for changed in layers) else "rank-ones"
    most = max(layers, key=lambda changed: changed[unit])
    total = sum(changed[unit] for changed in layers)
    return Figure(
        name=name,
        title=f"Where {edit['method']} changed the model",
        svg=plots.changes_by_layer(name, layers, unit),
        words=f"{total} {unit} in {len(layers)} layers, most ({most[unit]}) in layer {most['layer']}; "
        f"{edit['n_changed']:,} numbers at most.",
        headings=("layer", unit),
        rows=[(changed["layer"], changed[unit]) for changed in layers],
    )


def summaries_of(content: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """The figures before and after, and those of the model that never learned the secrets, where they were measured."""
    found = {moment: content[moment]["summary"] for moment in ("before", "after") if moment in content}
    return {**found, **content["after"].get("controls", {})}


def _exposures(summaries: Mapping[str, Mapping[str, float]]) -> Figure | None:
    keys = [key for key in _chance_keys(summaries) if key.startswith(_EXPOSED)]
    if not keys:
        return None
    labels = [key.removeprefix(_EXPOSED) for key in keys]
    most = math.log2(CANDIDATES + 1)
    top = {model: summary[keys[0]] for model, summary in summaries.items() if keys[0] in summary}
    return Figure(
        name="exposure",
        title="Hidden, or forgotten?",
        svg=plots.bars("exposure", labels, _series(summaries, keys), "bits", most=most),
        words=f"Where a secret stands among {CANDIDATES} made-up ones of its form, or as many as it has: {most:g} bits "
        "is before all others, from the top (what the model likes best) or the bottom. One that was never learned has "
        f"one to two from both; from the top {', '.join(f'{model} {value:.2f}' for model, value in top.items())}.",
        headings=("from where", *summaries),
        rows=_table(labels, summaries, keys),
    )


def _likenesses(summaries: Mapping[str, Mapping[str, float]]) -> Figure | None:
    keys = [key for key in _chance_keys(summaries) if not key.startswith(_EXPOSED)]
    drawn = [key for key in keys if key not in _DIFFERENCES]
    if not drawn:
        return None
    return Figure(
        name="likeness",
        title="Can it be told from one that was never learned?",
        svg=plots.bars("likeness", drawn, _series(summaries, drawn), "share"),
        words=f"{len(keys)} measures of which neither direction is good: the first or last digit or word of its kind, "
        "and how often a secret scores higher than a made-up one (0.5: nobody can tell). They are good near those of a "
        "model that never learned the secrets.",
        headings=("measure", *summaries),
        rows=_table(keys, summaries, keys),
    )


def _chance_keys(summaries: Mapping[str, Mapping[str, float]]) -> list[str]:
    return [metric.key for metric in METRICS if metric.question == "chance" and metric.key in summaries["after"]]


def _series(summaries: Mapping[str, Mapping[str, float]], keys: Sequence[str]) -> dict[str, list[float | None]]:
    return {model: [summary.get(key) for key in keys] for model, summary in summaries.items()}


def _table(
    labels: Sequence[str], summaries: Mapping[str, Mapping[str, float]], keys: Sequence[str]
) -> list[tuple[str, ...]]:
    return [
        (label, *(readable(summary.get(key)) for summary in summaries.values()))
        for label, key in zip(labels, keys, strict=True)
    ]


def _bars(plot: _BarPlot, summaries: Mapping[str, Mapping[str, float]], k: int) -> Figure | None:
    after = summaries["after"]
    metrics = [metric for metric in METRICS if metric.question == plot.question and metric.key in after]
    if not metrics:
        return None
    keys = [metric.key for metric in metrics]
    labels = [metric.key.replace("_", " ") + (f" @{k}" if metric.ranked else "") for metric in metrics]
    # All metrics of one question have one direction.
    worst = (min if metrics[0].better == "higher" else max)(range(len(keys)), key=lambda row: after[keys[row]])
    return Figure(
        name=plot.name,
        title=plot.title.format(k=k),
        svg=plots.bars(plot.name, labels, _series(summaries, keys), plot.label),
        words=f"{len(keys)} measures ({plot.label}); the weakest after the edit: {labels[worst]}, "
        f"{after[keys[worst]]:.2f}.",
        headings=("measure", *summaries),
        rows=_table(labels, summaries, keys),
    )


def _divergences(report: Mapping[str, Any]) -> Figure | None:
    values = report["divergences"]
    if not values:
        return None
    summary = report["summary"]
    ordered = sorted(values)
    shares = (0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
    quantiles = [(f"{share:.0%}", readable(ordered[round(share * (len(ordered) - 1))])) for share in shares]
    return Figure(
        name="divergences",
        title="Cost on ordinary text",
        svg=plots.divergences(values, summary["kl_median"], summary["kl_mean"]),
        words=f"KL divergence of the next token at {len(values)} positions: median {summary['kl_median']:.2g}, mean "
        f"{summary['kl_mean']:.2g} nats; {summary['top1_agreement']:.1%} keep their most likely token.",
        headings=("share of positions", "KL at most, nats"),
        rows=quantiles,
    )


def comparison_figure(content: Mapping[str, Any]) -> Figure | None:
    """Returns the plot of editors by efficacy and cost, or None where nothing is left to draw."""
    rows = [row for row in content["rows"] if {"kl_median", "efficacy"} <= row["figures"].keys()]
    figures = [(row, row["figures"]["kl_median"], row["figures"]["efficacy"]) for row in rows]
    edited = [(row["method"], cost, score) for row, cost, score in figures if row["seconds"]]
    if not edited:
        return None
    bare = [row["figures"]["efficacy"] for row in rows if not row["seconds"]]
    best = max(edited, key=lambda point: (point[2], -point[1]))
    return Figure(
        name="trade-off",
        title="Editors side by side",
        svg=plots.trade_off(
            "trade-off",
            edited,
            cost="cost: median KL on ordinary text, nats (left is better)",
            gain="efficacy (up is better)",
            marked=_PUBLISHED,
            levels={"no edit": bare[0]} if bare else {},
            most=1.0,
        ),
        words=f"{len(edited)} editors on the same {content['forgotten']} secrets, k = {content['k']}; {best[0]} hides "
        f"most (efficacy {best[2]:.2f}) at a median KL of {best[1]:.2g} nats.",
        headings=("editor", "median KL, nats", "efficacy"),
        rows=[(name, readable(cost), readable(score)) for name, cost, score in edited],
    )
