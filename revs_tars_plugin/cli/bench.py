"""`bench`: the field's own benchmarks, with the methods that people compare with."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, did_you_mean
from . import options
from .session import check_goals, print_json, print_table

if TYPE_CHECKING:
    from ..yardsticks import Record, Split
    from .loading import Loaded

# The checkout of open-unlearning whose methods are run beside ours.
CHECKOUT = "OPEN_UNLEARNING"
_OURS = "REVS"
_CACHE = Path("~/.cache/revs-tars-plugin/lume")

benchmarks = typer.Typer(help="The field's own benchmarks, on their published files.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Adds the group of commands."""
    app.add_typer(benchmarks, name="bench")


@benchmarks.command()
def lume(
    *,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="LUME's published files: JSON lines with forget and retain.")
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", help='The base that learns the records: a folder, a hub id, or "demo".')
    ] = "demo",
    learned: Annotated[
        Path | None, typer.Option(metavar="CHECKPOINT", help="A model that learned them already, in place of that.")
    ] = None,
    retain_only: Annotated[
        Path | None, typer.Option(metavar="CHECKPOINT", help="A model that learned the records to retain alone.")
    ] = None,
    task: Annotated[list[str], typer.Option(help="Task1, Task2 or Task3, each by an option of its own.")] = ["Task2"],
    people: Annotated[
        int | None, typer.Option(help="So many people to forget and to retain; as many more stay unseen. Default: all.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="How many times the base reads the records.")] = 12,
    method: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help="REVS, or GradDiff, NPO, SimNPO, RMU of the checkout of open-unlearning that OPEN_UNLEARNING names; "
            "each by an option of its own. Default: all that there are.",
        ),
    ] = [],
    learning_rate: Annotated[
        list[float], typer.Option(help="Of the methods that train; each by an option of its own.")
    ] = [1e-5],
    settings: options.Settings = None,
    changes: options.Changes = [],
    text: options.Text = None,
    device: options.Device = None,
    seed: options.Seed = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Results in open-unlearning's layout, a folder a row."),
    ] = None,
    require: options.Require = [],
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Let a model learn LUME's records, forget half of them by several methods, and measure what LUME measures.

    The row of the model that never learned them is the goal: "distance" is how far the others are from it, over LUME's
    own metrics. A model that has learned is kept and taken again. A goal for --require names a row and a figure.

    Example: revs-tars bench lume ./lume --people 25 --method REVS
    """
    from ..yardsticks import (
        LUME,
        RETAIN_ONLY,
        RIVALS,
        published_rival,
        read_lume,
        side_by_side,
        write_open_unlearning,
    )
    from .loading import checkpoint, load_model, method_named, ordinary_chunks, settings_for

    checkout = os.environ.get(CHECKOUT)
    known = [_OURS, *(RIVALS if checkout else ())]
    for name in method:
        if name in RIVALS and not checkout:
            raise InputError(
                f"--method {name} is run from a checkout of open-unlearning: name its folder in {CHECKOUT}."
            )
        if name not in known:
            raise InputError(f'--method is "{name}"; it must be of {", ".join(known)}{did_you_mean(name, known)}')
    split = read_lume(folder, tasks=task, people=people)
    progress = None if quiet else _say
    if learned is None or retain_only is None:
        teach = partial(_taught, checkpoint(model), device, epochs=epochs, seed=seed or 0, progress=progress)
        learned = learned or teach("learned", (*split.forget, *split.retain))
        retain_only = retain_only or teach("retain-only", split.retain)
    loaded, never_learned = (
        load_model(str(place), device, "float32", progress=not quiet) for place in (learned, retain_only)
    )
    ways: dict[str, Callable[[Any], None]] = {}
    for name in method or known:
        if name == _OURS:
            hparams = settings_for(method_named(None, settings, _OURS), loaded, settings, changes=changes, seed=seed)
            # What was measured of a model lies beside it.
            ways[name] = _edited(loaded, split, replace(hparams, stats_dir=str(learned.parent / "stats")))
        else:
            rival = published_rival(str(checkout), name)
            for rate in learning_rate:
                ways[f"{name}, {rate:g}"] = partial(
                    rival.unlearn, tok=loaded.tok, split=split, learning_rate=rate, seed=seed or 0
                )
    chunks = ordinary_chunks(loaded, text, seed or 0, progress=not quiet)
    rows, gold = [], None
    for row in side_by_side(loaded.model, never_learned.model, loaded.tok, split, ways, text=chunks, seed=seed or 0):
        rows.append(row)
        gold = row if row.name == RETAIN_ONLY else gold
        if output is not None:
            write_open_unlearning(output / row.name.replace(" ", "-"), LUME, row.scores)
        if not quiet:
            _say(f"{row.name}: measured")
    figures = {row.name: row.figures(gold) for row in rows}
    if json:
        print_json(figures)
    else:
        names = list(dict.fromkeys(name for row in figures.values() for name in row))
        title = f"{LUME}, {', '.join(task)}: {len(split.forget)} records to forget, {len(split.retain)} to retain"
        print_table(title, [{"": name, **{row: figures[row].get(name) for row in figures}} for name in names])
    check_goals(require, {f"{row}.{name}": value for row, found in figures.items() for name, value in found.items()})


def _taught(
    base: str,
    device: str | None,
    name: str,
    records: Sequence[Record],
    *,
    epochs: int,
    seed: int,
    progress: Callable[[str], None] | None,
) -> Path:
    """A checkpoint of a model that learned the records, made once and kept."""
    # The last name is the base's: EasyEdit and the settings go by it.
    last = Path(base).name
    content = repr((last, [(record.prompt, record.answer) for record in records], epochs, seed))
    folder = _CACHE.expanduser() / f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:12]}" / last
    if (folder / "config.json").is_file():
        return folder
    from ..yardsticks import learn
    from .loading import load_model, save_model

    def told(epoch: int, loss: float) -> None:
        if progress is not None:
            progress(f"{name}: epoch {epoch + 1} of {epochs}, loss {loss:.3f}")

    loaded = load_model(base, device, "float32", progress=progress is not None)
    learn(loaded.model, loaded.tok, records, epochs=epochs, seed=seed, progress=told)
    save_model(loaded, folder)
    return folder


def _edited(loaded: Loaded, split: Split, hparams: Any) -> Callable[[Any], None]:
    """REVS, which like its rivals is shown what to retain."""
    from ..methods import method_of
    from ..requests.reading import join

    execute = method_of(hparams.ALGORITHM).execute
    if execute is None:
        raise InputError(f"--settings are of {hparams.ALGORITHM}, which only EasyEdit runs; the benchmark takes REVS.")
    requests: list[dict[str, Any]] = [record.request() for record in split.forget]
    requests[0]["retain_texts"] = [join(record.prompt, record.answer) for record in split.retain]

    def forget(model: Any) -> None:
        execute(model, loaded.tok, requests, hparams).apply(model)

    return forget


def _say(text: str) -> None:
    typer.echo(text, err=True)
