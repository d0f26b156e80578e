"""The report: one page with figures, texts and plots, which fetches nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..atomic_write import replacing
from ..errors import InputError
from ..evaluation.metrics import METRICS
from ..formatting import readable
from .benchmark_figures import benchmark_figures
from .figures import comparison_figure, evaluation_figures, summaries_of
from .redaction import Redactor, masked_texts


def write_report(
    results: Sequence[Mapping[str, Any]],
    path: str | Path,
    *,
    title: str = "What the model forgot",
    show_secrets: bool = False,
) -> None:
    """Writes one self-contained HTML page.

    Args:
        results: What `read_result` gave: an evaluation, a comparison, or one of each, and any number of benchmarks.
        path: The page.
        title: Its heading.
        show_secrets: Show texts as they are, where the result has them.

    Raises:
        InputError: When there are two results of a kind, or masked ones where secrets are to be shown; or the page
            cannot be written.
    """
    by_kind: dict[str, Mapping[str, Any]] = {}
    benchmarks = [content for content in results if content["kind"] == "benchmark"]
    for content in (content for content in results if content["kind"] != "benchmark"):
        if content["kind"] in by_kind:
            raise InputError(f"Two results are {content['kind']}s; a report takes one of each at most.")
        by_kind[content["kind"]] = content
    evaluation, comparison = by_kind.get("evaluation"), by_kind.get("comparison")
    if show_secrets and (evaluation is None or evaluation["redacted"]):
        raise InputError(
            "--show-secrets: the result was written without the secrets; evaluate with --show-secrets, too."
        )
    template = _template("page.html.jinja")
    try:
        page = template.render(
            title=title,
            evaluation=evaluation,
            comparison=comparison,
            benchmarks=[(content, benchmark_figures(content, number)) for number, content in enumerate(benchmarks)],
            first=next(iter((*by_kind.values(), *benchmarks))),
            **(_parts(evaluation, show_secrets) if evaluation else {}),
            trade_off=comparison_figure(comparison) if comparison else None,
            readable=readable,
        )
    except InputError:
        raise
    # Undefined values of a template are of no kind that is known here.
    except Exception as error:
        raise InputError(
            f"A result cannot be drawn ({type(error).__name__}: {' '.join(str(error).split())}); it was changed, "
            "so measure again."
        ) from error
    file = Path(path).expanduser()
    try:
        with replacing(file) as opened:
            opened.write(page.encode())
    except OSError as error:
        raise InputError(f"{file} cannot be written ({error.strerror or error}); name another place.") from error


def forgetting_fragment(evaluation: Mapping[str, Any], *, show_secrets: bool = False) -> str:
    """Returns the part of the page about one evaluation, with its own style, for a page around it.

    Args:
        evaluation: What `result("evaluation", ...)` gave.
        show_secrets: Show texts as they are, where the result has them.

    Raises:
        InputError: When a library is missing.
    """
    parts = _parts(evaluation, show_secrets)
    return str(_template("forgetting.html.jinja").render(evaluation=evaluation, **parts))


def _template(name: str) -> Any:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise InputError("The report needs matplotlib and jinja2: pip install 'revs-tars-plugin[report]'") from error
    environment = Environment(
        loader=PackageLoader("revs_tars_plugin.report", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template(name)


def _parts(evaluation: Mapping[str, Any], show_secrets: bool) -> dict[str, Any]:
    return {
        "headlines": _headlines(evaluation),
        "texts": _texts(evaluation, show_secrets),
        "figures": evaluation_figures(evaluation),
    }


def _headlines(content: Mapping[str, Any]) -> list[dict[str, str]]:
    after = content["after"]["summary"]
    others = {model: summary for model, summary in summaries_of(content).items() if model != "after"}
    return [
        {
            "name": metric.label,
            "after": readable(after[metric.key]),
            # The cost is measured against the model before the edit, so there is nothing to say of that one.
            "others": ", ".join(
                f"{model}: {readable(summary[metric.key])}"
                for model, summary in others.items()
                if metric.key in summary and metric.question != "cost"
            ),
        }
        for metric in METRICS
        if metric.headline and metric.key in after
    ]


def _texts(content: Mapping[str, Any], show: bool) -> list[dict[str, Any]]:
    """The prompts with what was said; a result that has the secrets is masked here unless they are to be shown."""
    rows = content["texts"]
    if content["redacted"] or show:
        return list(rows)
    redact = Redactor([row["target"] for row in rows], [row["subject"] for row in rows if row.get("subject")])
    return masked_texts(rows, redact)
