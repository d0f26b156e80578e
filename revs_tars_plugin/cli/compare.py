"""`compare`: REVS and TARS beside EasyEdit's own editors, on the same secrets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from . import options
from .asked import Asked, read_asked
from .session import check_goals, print_json, session_of

# Columns of the table, with what each is called in a row's figures.
_COLUMNS = {
    "score": "unlearning_score",
    "efficacy": "efficacy",
    "generality": "generality",
    "specificity": "specificity",
    "Resistance": "resistance_score",
    "still said": "still generated",
    "reworded": "paraphrase",
    "KL median": "kl_median",
    "KL mean": "kl_mean",
    "top-1": "top1_agreement",
}
_HEADINGS = ["", *_COLUMNS, "s", "MiB", "M changed"]


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(compare)


def compare(
    context: typer.Context,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help="Secrets, as for edit; ROME and MEMIT need a subject for each. By default 10 that the demo model "
            "learned by heart, with 24 retained ones.",
        ),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help='A checkpoint folder, a hub id, or "demo", which learned the secrets.')
    ] = "demo",
    method: Annotated[
        list[str], typer.Option(metavar="NAME", help="Only these, each by an option of its own; by default all seven.")
    ] = [],
    settings: Annotated[
        list[str],
        typer.Option("--settings", "-s", metavar="NAME=YAML", help="A method's settings, for another model than demo."),
    ] = [],
    replacement: Annotated[
        str | None, typer.Option(help="What the host's own editors write in a secret's place; by default 'unknown'.")
    ] = None,
    text: options.Text = None,
    device: Annotated[
        str | None, typer.Option(help="Where EasyEdit puts the model: cpu or a CUDA device's number.")
    ] = None,
    k: Annotated[int, typer.Option(help="From how many places on a token counts as hidden.")] = 100,
    seed: options.Seed = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="JSON", help="The whole result, for revs-tars report.")
    ] = None,
    require: options.Require = [],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Let the host print.")] = False,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    secret: options.Secret = None,
) -> None:
    """Let several editors forget the same secrets of the same model, one after another, and measure each.

    Needs EasyEdit. On the demo model it takes 18 minutes on 2 cores, and five more the first time, when the model
    learns the secrets. A goal for --require names a method and a figure: "REVS.efficacy>=0.99".

    Example: revs-tars compare --method REVS --method FT
    """
    session = session_of(context)
    if output is not None:
        output = options.free(output, overwrite, file)
    if device is not None and device != "cpu" and not device.isdigit():
        raise InputError(f'--device is "{device}"; EasyEdit takes cpu or the number of a CUDA device.')
    asked = read_asked(file, session) if file is not None else None
    if model != "demo" and asked is None:
        raise InputError("--model needs FILE: prompts and what must not follow.")
    if asked is not None and asked.concepts:
        raise InputError("FILE holds concepts; the comparison is of secrets: CSV or JSON lines with prompt and target.")
    rows, content = _run(asked, model, method, settings, replacement, text, device, k, seed or 0, verbose, quiet)
    if output is not None:
        from ..results import write_result

        write_result(output, content)
    if json:
        print_json(content["rows"])
    elif markdown:
        typer.echo(_markdown(rows))
    else:
        _print(rows, _title(content))
    check_goals(require, {f"{row.method}.{name}": value for row in rows for name, value in _figures(row).items()})


def _run(
    asked: Asked | None,
    model: str,
    methods: Sequence[str],
    settings: Sequence[str],
    replacement: str | None,
    text: str | None,
    device: str | None,
    k: int,
    seed: int,
    verbose: bool,
    quiet: bool,
) -> tuple[list[Any], dict[str, Any]]:
    import warnings

    warnings.simplefilter("ignore", FutureWarning)  # what the host imports is deprecated in its own libraries
    from ..data.memorised import memorised_demo
    from ..host.comparison import COMPARED
    from ..host.comparison import compare as side_by_side
    from ..host.unlearn_editor import HOST
    from ..results import result
    from .loading import load_model, ordinary_chunks

    stats_dir = None
    if model == "demo":

        def learned(epoch: int, loss: float) -> None:
            if not quiet:
                typer.echo(f"learning by heart, epoch {epoch + 1} of 12: loss {loss:.3f}", err=True)

        folder, forget, retain = memorised_demo(learned)
        asked = asked or Asked(tuple(forget), tuple(retain))
        stats_dir = folder.parent / "stats"
        model = str(folder)
    assert asked is not None
    chunks = ordinary_chunks(load_model(model, "cpu", "auto", progress=not quiet), text, seed, progress=not quiet)
    rows = side_by_side(
        model,
        asked.forget,
        retain=asked.retain,
        corpus=chunks,
        methods=methods or COMPARED,
        settings=dict(item.partition("=")[::2] for item in settings),
        replacement=replacement,
        stats_dir=stats_dir,
        k=k,
        seed=seed,
        device=int(device) if device and device.isdigit() else device,
        verbose=verbose,
        progress=not quiet,
    )
    content = {
        "model": Path(model).name,
        "host": HOST.generation,
        "k": k,
        "forgotten": len(asked.forget),
        "retained": len(asked.retain),
        "rows": [row.to_dict() for row in rows],
    }
    return rows, result("comparison", content, redacted=True)


def _title(content: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {content['versions'][name]}" for name in ("torch", "transformers"))
    counts = f"{content['forgotten']} secrets forgotten, {content['retained']} retained, k = {content['k']}"
    return f"{counts}; EasyEdit ({content['host']}), {versions}"


def _figures(row: Any) -> dict[str, float]:
    own = {"seconds": row.seconds, "peak_mib": row.peak_mib, "n_changed": row.n_changed}
    return {**row.figures, **{name: float(value) for name, value in own.items() if value is not None}}


def _cells(row: Any) -> list[str]:
    if row.error:
        return [row.method, f"failed: {row.error}"]
    figures = [f"{row.figures[key]:.3g}" if key in row.figures else "" for key in _COLUMNS.values()]
    cost = ["" if row.seconds is None else f"{row.seconds:.0f}", "" if row.peak_mib is None else f"{row.peak_mib:.0f}"]
    return [row.method, *figures, *cost, "" if row.n_changed is None else f"{row.n_changed / 1e6:.2f}"]


def _print(rows: Sequence[Any], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for heading in _HEADINGS:
        table.add_column(heading, justify="right" if heading else "left", overflow="fold", no_wrap=not heading)
    for row in rows:
        table.add_row(*_cells(row))
    Console(width=None if Console().is_terminal else 160).print(table)


def _markdown(rows: Sequence[Any]) -> str:
    lines = ["| " + " | ".join(_HEADINGS) + " |", "|---" + "|---:" * (len(_HEADINGS) - 1) + "|"]
    for row in rows:
        cells = _cells(row)
        lines.append("| " + " | ".join([*cells, *[""] * (len(_HEADINGS) - len(cells))]) + " |")
    return "\n".join(lines)
