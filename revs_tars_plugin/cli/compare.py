"""`compare`: REVS and TARS beside EasyEdit's own editors, on the same secrets."""

from __future__ import annotations

import os
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..formatting import markdown_table, print_tables, terminal_table
from . import options
from .kept_rows import KeptRows, conditions_of, content_of, files_in
from .requests_file import RequestsFile, read_requests_file
from .session import check_goals, parsed_goal, print_json, session_of
from .together import launched

if TYPE_CHECKING:
    from ..host.comparison import ComparisonRow

# Columns of characters that the table takes where the output is no terminal.
_WIDTH = 160
# How many of the demo model's secrets are taken unless all are asked for: ROME and its kin search for each.
_USUAL_SECRETS = 3
# Attacks that compare with another model.
_NEED_MORE = ("guidance", "merging")


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(compare)


def compare(
    *,
    context: typer.Context,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help="Secrets, as for edit; ROME and its kin need a subject for each. By default 3 of the 10 that the demo "
            "model learned by heart, with 24 retained ones.",
        ),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help='A checkpoint folder, a hub id, or "demo", which learned the secrets.')
    ] = "demo",
    method: Annotated[
        list[str],
        typer.Option(
            metavar="NAME", help="Only these, each by an option of its own; by default all but WISE, R-ROME and EMMET."
        ),
    ] = [],
    settings: Annotated[
        list[str],
        typer.Option("--settings", "-s", metavar="NAME=YAML", help="A method's settings, for another model than demo."),
    ] = [],
    full: Annotated[
        bool, typer.Option("--full", help="All editors, and all 10 secrets that the demo model learned.")
    ] = False,
    replacement: Annotated[
        str | None, typer.Option(help="What the host's own editors write in a secret's place; by default 'unknown'.")
    ] = None,
    attack: Annotated[
        list[str],
        typer.Option(
            help="Only these attacks, each by an option of its own; by default exposure, paraphrase and the REVS "
            "paper's three."
        ),
    ] = [],
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

    Needs EasyEdit. On the demo model and 2 cores count half an hour, and the first time five minutes more, when the
    model learns the secrets; with -o a run that was stopped goes on when it is started again. A goal for --require
    names a method and a figure: "REVS.still generated<=0".

    Example: revs-tars compare --method REVS --method FT
    """
    session = session_of(context)
    if output is not None:
        output = options.free(output, overwrite, file)
    if device is not None and device != "cpu" and not device.isdigit():
        raise InputError(f'--device is "{device}"; EasyEdit takes cpu or the number of a CUDA device.')
    if launched() and device not in (None, "cpu"):
        raise InputError("--device: leave it out under a launcher: each process has a device of its own.")
    requested = read_requests_file(file, session) if file is not None else None
    if model != "demo" and requested is None:
        raise InputError("--model needs FILE: prompts and what must not follow.")
    if requested is not None and requested.concepts:
        raise InputError("FILE holds concepts; the comparison is of secrets: CSV or JSON lines with prompt and target.")
    if attack:
        options.check_attacks(attack, without=_NEED_MORE)
        if "in-context" in attack and requested is not None and not requested.retain:
            raise InputError("--attack in-context needs lines with retain.")
        _check_goals_are_measured(require, attack)
    arguments: dict[str, Any] = {
        "settings": dict(item.partition("=")[::2] for item in settings),
        "replacement": replacement,
        "device": int(device) if device and device.isdigit() else device,
        "k": k,
        "seed": seed or 0,
        "verbose": verbose,
        "progress": not quiet,
    }
    from ..host.editors import EDITORS

    if method or full:
        arguments["methods"] = method or list(EDITORS)
    if attack:
        arguments["attacks"] = attack
    rows, content = _run(requested, model, text, arguments, most=None if full else _USUAL_SECRETS, output=output)
    if json:
        print_json(content["rows"])
    elif markdown:
        typer.echo("\n".join(markdown_table(_headings(), [_cells(row) for row in rows])))
    else:
        groups = {_title(content): False, "External memories: they write beside the weights": True}
        tables = [
            terminal_table(title, _headings(), [_cells(row) for row in rows if row.memory is memory])
            for title, memory in groups.items()
            if any(row.memory is memory for row in rows)
        ]
        print_tables(*tables, width=_WIDTH)
    check_goals(require, {f"{row.method}.{name}": value for row in rows for name, value in _figures(row).items()})


def _check_goals_are_measured(goals: list[str], attacks: list[str]) -> None:
    """Refuses goals for figures of attacks that are left out."""
    from ..evaluation import METRICS

    of_attacks = {metric.key: metric.attack for metric in METRICS if metric.attack is not None}
    for name, _, _ in map(parsed_goal, goals):
        missing = of_attacks.get(name.partition(".")[2])
        if missing is not None and missing not in attacks:
            raise InputError(f'--require names "{name}", which is not measured without --attack "{missing}".')


def _run(
    requested: RequestsFile | None,
    model: str,
    text: str | None,
    arguments: dict[str, Any],
    *,
    most: int | None,
    output: Path | None,
) -> tuple[list[ComparisonRow], dict[str, Any]]:
    """Returns a row for each editor, and the whole result, which is written where it belongs.

    Args:
        requested: The secrets; None takes the demo model's.
        model: The model.
        text: Ordinary text.
        arguments: Those of the comparison.
        most: How many of the demo model's secrets are taken.
        output: Where the result goes; until it is whole, rows are kept in a folder beside it.
    """
    warnings.simplefilter("ignore", FutureWarning)  # what the host imports is deprecated in its own libraries
    import torch

    from ..data.memorised import memorised_demo
    from ..host import register
    from ..host.comparison import ComparisonRow, check_methods
    from ..host.comparison import compare as side_by_side
    from ..model.processes import of_writer, writer_first, writes
    from ..report.results import result, write_result
    from .loading import load_model, ordinary_chunks

    # First of all: where the host or a method is missing nobody waits for a model to learn.
    host = register()
    check_methods(host, arguments.get("methods", ()))
    progress = arguments["progress"]

    def learned(epoch: int, loss: float) -> None:
        if progress:
            typer.echo(f"learning by heart, epoch {epoch + 1} of 12: loss {loss:.3f}", err=True)

    if launched() and arguments["device"] is None and torch.cuda.is_available():
        arguments = {**arguments, "device": int(os.environ["LOCAL_RANK"])}
    if model == "demo":
        with writer_first():
            folder, forget, retain = memorised_demo(learned)
        requested = requested or RequestsFile(tuple(forget[:most]), tuple(retain))
        arguments = {**arguments, "stats_dir": folder.parent / "stats"}
        model = str(folder)
    assert requested is not None
    # The host loads the model again, so this one must not stay.
    chunks = ordinary_chunks(
        load_model(model, "cpu", "auto", progress=progress), text, arguments["seed"], progress=progress
    )
    kept, wanted, measured = None, _settings_of(arguments), {}
    if output is not None:
        decisive = [arguments.get(name) for name in ("seed", "k", "replacement", "attacks")]
        given = (requested.forget, requested.retain, chunks, files_in(Path(model)), host.generation, decisive)
        kept = KeptRows(
            output.with_name(f"{output.name}.rows"), conditions_of(*given), lambda row: ComparisonRow(**row)
        )
        measured = of_writer(partial(kept.read, wanted))

    def keep(row: ComparisonRow) -> None:
        if kept is not None and row.error is None and writes():
            kept.write(row.method, row, wanted[row.method])

    rows = side_by_side(
        model, requested.forget, retain=requested.retain, corpus=chunks, measured=measured, on_row=keep, **arguments
    )
    content = {
        "model": Path(model).name,
        "host": host.generation,
        "k": arguments["k"],
        "forgotten": len(requested.forget),
        "retained": len(requested.retain),
        "rows": [row.to_dict() for row in rows],
    }
    whole = result("comparison", content, redacted=True)
    if kept is not None and output is not None and writes():
        write_result(output, whole)
        kept.remove()
    return rows, whole


def _settings_of(arguments: dict[str, Any]) -> dict[str, str]:
    """Each method that is asked for, with what its row alone depends on: the settings that a file holds."""
    from ..host.editors import USUAL

    files = {name: Path(file).expanduser() for name, file in arguments["settings"].items()}
    return {name: content_of(files.get(name)) for name in arguments.get("methods", USUAL)}


def _title(content: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {content['versions'][name]}" for name in ("torch", "transformers"))
    counts = f"{content['forgotten']} secrets forgotten, {content['retained']} retained, k = {content['k']}"
    return f"{counts}; EasyEdit ({content['host']}), {versions}"


def _figures(row: ComparisonRow) -> dict[str, float]:
    costs = {"seconds": row.seconds, "peak_mib": row.peak_mib, "n_changed": row.n_changed}
    return {**row.figures, **{name: float(value) for name, value in costs.items() if value is not None}}


def _columns() -> dict[str, str]:
    """The metrics that have a column, with its heading."""
    from ..evaluation import METRICS

    return {metric.key: metric.heading for metric in METRICS if metric.heading}


def _headings() -> list[str]:
    return ["", *_columns().values(), "s", "MiB", "M changed"]


def _cells(row: ComparisonRow) -> list[str]:
    if row.error:
        absent = "does not have it" in row.error
        return [row.method, row.error if absent else f"failed: {row.error}"]
    figures = [f"{row.figures[key]:.3g}" if key in row.figures else "" for key in _columns()]
    cost = ["" if value is None else f"{value:.0f}" for value in (row.seconds, row.peak_mib)]
    return [row.method, *figures, *cost, "" if row.n_changed is None else f"{row.n_changed / 1e6:.2f}"]
