"""The report: one page with figures, texts and plots, which fetches nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..redaction import Redactor
from ..shown import shown
from ..whole_files import replacing
from . import plots

# Scores: 1 is hidden. With k behind those that look at ranks.
_RANKED = ("efficacy", "generality", "logit lens", "perturbation", "delta", "resistance_score")
_HIDING = (
    *_RANKED,
    *("quantization, 8 bits", "quantization, 4 bits", "in-context", "relearning"),
)
# Shares that come out: 0 is hidden.
_COMING_OUT = (
    *("still generated", "paraphrase", "sampled", "exact memorization", "extraction strength"),
    *("concept", "concept, worst", "concept, other languages"),
)
_HEADLINES = {
    "unlearning_score": "Unlearning Score",
    "efficacy": "efficacy",
    "resistance_score": "Resistance",
    "specificity": "retained",
    "still generated": "still generated",
    "concept, worst": "concept, worst prompt",
    "kl_median": "KL, median (nats)",
    "top1_agreement": "same top token",
}
# Measured against the model before the edit, so there is nothing to say of that one.
_COSTS = ("kl_median", "top1_agreement")


@dataclass(frozen=True)
class Figure:
    """A plot with what it says in words, and its numbers as a table."""

    name: str
    title: str
    svg: str
    words: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Any]]


def write_report(
    results: Sequence[Mapping[str, Any]],
    path: str | Path,
    *,
    title: str = "What the model forgot",
    show_secrets: bool = False,
) -> None:
    """Writes one self-contained HTML page.

    Args:
        results: What `read_result` gave: an evaluation, a comparison, or one of each.
        path: The page.
        title: Its heading.
        show_secrets: Show texts as they are, where the result has them.

    Raises:
        InputError: When there are two results of a kind, or masked ones where secrets are to be shown; or the page
            cannot be written.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise InputError("The report needs matplotlib and jinja2: pip install 'revs-tars-plugin[report]'") from error
    by_kind: dict[str, Mapping[str, Any]] = {}
    for content in results:
        if content["kind"] in by_kind:
            raise InputError(f"Two results are {content['kind']}s; a report takes one of each at most.")
        by_kind[content["kind"]] = content
    evaluation, comparison = by_kind.get("evaluation"), by_kind.get("comparison")
    if show_secrets and (evaluation is None or evaluation["redacted"]):
        raise InputError(
            "--show-secrets: the result was written without the secrets; evaluate with --show-secrets, too."
        )
    environment = Environment(
        loader=PackageLoader("revs_tars_plugin.report", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    page = environment.get_template("page.html.jinja").render(
        title=title,
        evaluation=evaluation,
        comparison=comparison,
        headlines=_headlines(evaluation) if evaluation else [],
        texts=_texts(evaluation, show_secrets) if evaluation else [],
        figures=evaluation_figures(evaluation) if evaluation else [],
        trade_off=comparison_figure(comparison) if comparison else None,
        shown=shown,
    )
    file = Path(path).expanduser()
    try:
        with replacing(file) as opened:
            opened.write(page.encode())
    except OSError as error:
        raise InputError(f"{file} cannot be written ({error.strerror or error}); name another place.") from error


def evaluation_figures(content: Mapping[str, Any]) -> list[Figure]:
    """Returns the plots that an evaluation gives; those that nothing was measured for are left out."""
    moments = {moment: content[moment] for moment in ("before", "after") if moment in content}
    after = content["after"]
    k = after["settings"]["k"]
    found = [
        _ranks(moments, k),
        *(_changes(edit, f"layers-{number}") for number, edit in enumerate(content["edits"], 1)),
        _bars("hiding", f"Hidden under attack, k = {k}", _HIDING, moments, "1: hidden, 0: plain", k),
        _bars("coming-out", "What still comes out", _COMING_OUT, moments, "0: nothing, 1: everything", None),
        _divergences(after),
    ]
    return [figure for figure in found if figure is not None]


def _ranks(moments: Mapping[str, Mapping[str, Any]], k: int) -> Figure | None:
    known = {moment: report["ranks"] for moment, report in moments.items() if report["ranks"]}
    if not known:
        return None
    layers = range(len(known["after"][0]))
    middle = {
        moment: [int(plots.median([own[layer] for own in secrets])) for layer in layers]
        for moment, secrets in known.items()
    }
    said = [f"{moment} the edit" if len(middle) > 1 else "now" for moment in middle]
    words = "; ".join(
        f"{when}: {values[0]} in the first layer, {min(values)} at the least, {values[-1]} in the last"
        for when, values in zip(said, middle.values(), strict=True)
    )
    return Figure(
        "ranks",
        "Rank of the secret at every layer",
        plots.ranks_by_layer(known, k),
        f"Median over {len(known['after'])} secrets of the rank of the best-hidden token, read by the logit lens; "
        f"{words}. A rank of {k} or more counts as hidden.",
        ("layer", *(f"median rank {moment}" for moment in middle)),
        [(layer, *(values[layer] for values in middle.values())) for layer in layers],
    )


def _changes(edit: Mapping[str, Any], name: str) -> Figure | None:
    layers = edit["layers"]
    if not layers:
        return None
    unit = "neurons" if any(own["neurons"] for own in layers) else "rank-ones"
    most = max(layers, key=lambda own: own[unit])
    total = sum(own[unit] for own in layers)
    return Figure(
        name,
        f"Where {edit['method']} changed the model",
        plots.changes_by_layer(name, layers, unit),
        f"{total} {unit} in {len(layers)} layers, most ({most[unit]}) in layer {most['layer']}; "
        f"{edit['n_changed']:,} numbers at most.",
        ("layer", unit),
        [(own["layer"], own[unit]) for own in layers],
    )


def _bars(
    name: str, title: str, wanted: Sequence[str], moments: Mapping[str, Mapping[str, Any]], label: str, k: int | None
) -> Figure | None:
    after = moments["after"]["summary"]
    before = moments["before"]["summary"] if "before" in moments else {}
    known = [figure for figure in wanted if figure in after]
    if not known:
        return None
    labels = [f"{_spelt(figure)} @{k}" if k and figure in _RANKED else _spelt(figure) for figure in known]
    rows = [(text, before.get(figure), after[figure]) for text, figure in zip(labels, known, strict=True)]
    worst = (min if name == "hiding" else max)(rows, key=lambda row: row[2])
    return Figure(
        name,
        title,
        plots.bars(name, rows, label),
        f"{len(rows)} measures ({label}); the weakest after the edit: {worst[0]}, {worst[2]:.2f}.",
        ("measure", *(["before"] if before else []), "after"),
        [(text, *([shown(old)] if before else []), shown(new)) for text, old, new in rows],
    )


def _divergences(report: Mapping[str, Any]) -> Figure | None:
    values = report["divergences"]
    if not values:
        return None
    summary = report["summary"]
    ordered = sorted(values)
    shares = (0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
    quantiles = [(f"{share:.0%}", shown(ordered[round(share * (len(ordered) - 1))])) for share in shares]
    return Figure(
        "divergences",
        "Cost on ordinary text",
        plots.divergences(values, summary["kl_median"], summary["kl_mean"]),
        f"KL divergence of the next token at {len(values)} positions: median {summary['kl_median']:.2g}, mean "
        f"{summary['kl_mean']:.2g} nats; {summary['top1_agreement']:.1%} keep their most likely token.",
        ("share of positions", "KL at most, nats"),
        quantiles,
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
        "trade-off",
        "Editors side by side",
        plots.trade_off(edited, bare[0] if bare else None),
        f"{len(edited)} editors on the same {content['forgotten']} secrets, k = {content['k']}; {best[0]} hides most "
        f"(efficacy {best[2]:.2f}) at a median KL of {best[1]:.2g} nats.",
        ("editor", "median KL, nats", "efficacy"),
        [(name, shown(cost), shown(score)) for name, cost, score in edited],
    )


def _headlines(content: Mapping[str, Any]) -> list[dict[str, str]]:
    after = content["after"]["summary"]
    before = content.get("before", {}).get("summary", {})
    return [
        {
            "name": text,
            "after": shown(after[name]),
            "before": shown(before[name]) if name in before and name not in _COSTS else "",
        }
        for name, text in _HEADLINES.items()
        if name in after
    ]


def _texts(content: Mapping[str, Any], show: bool) -> list[dict[str, Any]]:
    """The prompts with what was said; a result that has the secrets is masked here unless they are to be shown."""
    rows = content["texts"]
    if content["redacted"] or show:
        return list(rows)
    redact = Redactor([row["target"] for row in rows], [row["subject"] for row in rows if row.get("subject")])
    return [{key: value if key == "kind" else redact(value or "") for key, value in row.items()} for row in rows]


def _spelt(figure: str) -> str:
    return figure.replace("_", " ")
