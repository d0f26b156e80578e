"""`edit`, `undo` and `stats`: computing an edit, taking one back, and preparing a model for many."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from . import options
from .edit_outputs import EditOutputs
from .requests_file import read_requests_file
from .session import Session, check_goals, print_json, print_table, session_of

if TYPE_CHECKING:
    from ..edits.edit_set import EditSet


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(edit)
    app.command()(undo)
    app.command()(stats)


def edit(
    *,
    context: typer.Context,
    file: options.Requests,
    model: options.Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The edit, one safetensors file.")],
    merged: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Also write the edited model there.")] = None,
    adapter: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Also write it as a LoRA adapter there: the form for a packed model."),
    ] = None,
    requantize: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Of a packed model: also pack it again with the edit in it, and write it there if every rank still "
            "holds (REVS).",
        ),
    ] = None,
    after: Annotated[
        list[Path], typer.Option(metavar="EDIT", help="Saved edits that are in place first, in this order.")
    ] = [],
    protect: Annotated[
        bool, typer.Option(help="Show the method the retained lines, so that it leaves them alone (REVS).")
    ] = False,
    settings: options.Settings = None,
    method: options.Method = None,
    change: options.Changes = [],
    text: options.Text = None,
    include_requests: Annotated[
        bool, typer.Option("--include-requests", help="Also write the secrets into the edit's file.")
    ] = False,
    chat: options.Chat = False,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    seed: options.Seed = None,
    require: options.Require = [],
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    show_secrets: options.ShowSecrets = False,
    debug: options.Debug = False,
    secret: options.Secret = None,
) -> None:
    """Make a model forget what FILE says; writes the edit to OUTPUT.

    The model on disk is not touched. With REVS, a run that was stopped goes on when it is started again. Goals for
    --require: reached (the share of tokens, or concepts, that got where the settings want them), probability_after (the
    most likely one's), seconds.

    Example: revs-tars edit secrets.csv --model ./my-model -o edit.safetensors --merged ./clean-model
    """
    session = session_of(context)
    if requantize is not None and after:
        raise InputError("--requantize writes one edit into packed weights; leave --after out.")
    outputs = EditOutputs(output, merged, adapter, requantize)
    outputs = outputs.free(overwrite=overwrite, inputs=(file, model, settings, *after), model=model)
    requested = read_requests_file(file, session)
    from ..model.processes import alone, writes
    from .loading import load_model, method_named, settings_for

    chosen = method_named(method, settings, "TARS" if requested.concepts else "REVS")
    earlier = _load_edits(after)
    loaded = load_model(model, device, dtype, progress=not quiet)
    for done in earlier:
        done.apply_beside(loaded.model)
    hparams = settings_for(chosen, loaded, settings, changes=change, seed=seed, text=text)
    outputs.check(loaded, chosen, hparams, model)
    if chat:
        hparams.chat_template = True
    if protect and not hparams.spares_retained_texts:
        raise InputError("--protect needs REVS with localization: covariance; leave it out.")
    nameless = next((concept.name for concept in requested.concepts if not concept.prompts), None)
    if nameless is not None and getattr(hparams, "prompts", "given") == "given":
        raise InputError(
            f'{file}: the concept "{session.redact(nameless)}" has no "prompts"; give texts after which its name '
            "comes, or let the model write them: --set prompts=written (TARS)."
        )
    _read_moments(loaded, hparams, quiet)
    requests = requested.requests_of_call(loaded.tok, protect=protect, chat=hparams.chat_template)
    start = time.perf_counter()
    assert chosen.execute is not None
    # Where one step after another is solved, a run that was stopped goes on.
    unfinished = outputs.edit.with_name(f"{outputs.edit.name}.unfinished")
    resuming = {"unfinished": unfinished} if chosen.resumes else {}
    edits = chosen.execute(loaded.model, loaded.tok, requests, hparams, progress=not quiet, **resuming)
    seconds = time.perf_counter() - start
    if not writes():
        return
    with alone():
        written = outputs.write(edits, loaded, requests, hparams, model=model, include_requests=include_requests)
    shutil.rmtree(unfinished, ignore_errors=True)
    edits = written.edits
    rows = [_masked(outcome.row(), session) for outcome in edits.outcomes]
    summary = {
        "method": chosen.name,
        "targets": len(rows),
        # Where all secrets were at chance before, no token is a target.
        "reached": sum(row["reached"] for row in rows) / len(rows) if rows else 1.0,
        "probability_after": max((row["probability after"] for row in rows), default=0.0),
        "n_changed": edits.n_changed,
        "seconds": seconds,
    }
    packed = [outcome.row() for outcome in written.outcomes]
    if json:
        print_json({"summary": summary, "outcomes": rows, "requantized_outcomes": packed, **written.places})
    else:
        print_table(f"{chosen.name} on {Path(loaded.name).name}", rows)
        if packed:
            print_table("Packed again with the edit in it", packed)
        typer.echo(
            f"{summary['reached']:.0%} reached their goal; {edits.n_changed:,} numbers changed; {seconds:.1f} s.\n"
            + written.said()
        )
    written.check()
    check_goals(require, options.as_goals(summary))


def undo(
    *,
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="EDIT", help="The edit that is to come out, as edit wrote it.")],
    model: Annotated[str, typer.Option("--model", "-m", help="The edited model: a checkpoint folder or a hub id.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="The model without the edit.")],
    base: Annotated[
        str | None,
        typer.Option(help='The model before the edit, or "demo"; needed for an edit by products (covariance).'),
    ] = None,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Take an edit out of a merged model, bit for bit.

    Other edits of the same model stay. Nothing is written where the model is not, to the bit, the edited one.

    Example: revs-tars undo edit.safetensors --model ./clean-model --base ./my-model -o ./restored
    """
    output = options.free(output, overwrite, model, base)
    from ..edits.edit_set import EditSet
    from .loading import load_model, save_model

    edits = EditSet.load(file)
    loaded = load_model(model, device, dtype, progress=not quiet)
    if base is None:
        edits.undo(loaded.model)
    else:
        edits.undo_by_base(loaded.model, load_model(base, device, dtype, progress=not quiet).model)
    save_model(loaded, output)
    if json:
        print_json({"restored": str(output), "n_changed": edits.n_changed})
    else:
        typer.echo(f"{edits.method}'s edit is out ({edits.n_changed:,} numbers); the model: {output}")


def stats(
    *,
    context: typer.Context,
    model: options.Model,
    settings: options.Settings = None,
    method: options.Method = None,
    change: options.Changes = [],
    text: options.Text = None,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    seed: options.Seed = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Measure a model's second moments on ordinary text, once, so that later edits need not.

    They are kept in the files that EasyEdit's ROME and MEMIT use. What is there already is not measured again, and a
    run that was stopped goes on when it is started again.

    Example: revs-tars stats --model ./my-model --text articles.txt
    """
    from .loading import load_model, method_named, settings_for

    chosen = method_named(method, settings, "REVS")
    loaded = load_model(model, device, dtype, progress=not quiet)
    hparams = settings_for(chosen, loaded, settings, changes=change, seed=seed, text=text)
    start = time.perf_counter()
    paths = _read_moments(loaded, hparams, quiet, always=True)
    seconds = time.perf_counter() - start
    if json:
        print_json({"files": {weight: str(path) for weight, path in paths.items()}, "seconds": seconds})
    else:
        folder = next(iter(paths.values())).parent
        typer.echo(f"Second moments of {len(paths)} matrices in {folder} ({seconds:.1f} s).")


def _load_edits(files: list[Path]) -> list[EditSet]:
    from ..edits.edit_set import EditSet

    return [EditSet.load(file) for file in files]


def _read_moments(loaded: Any, hparams: Any, quiet: bool, *, always: bool = False) -> dict[str, Path]:
    """Measured first, so that the bar says what is going on."""
    from ..model.decoder import Decoder
    from ..moments.second_moments import ordinary_moments

    if not (always or hparams.reads_moments):
        return {}
    return ordinary_moments(Decoder.of(loaded.model, hparams), loaded.tok, hparams, progress=not quiet).paths


def _masked(row: dict[str, Any], session: Session) -> dict[str, Any]:
    """A line for a target token or a concept, with what must not be shown masked."""
    return {name: session.redact(value) if isinstance(value, str) else value for name, value in row.items()}
