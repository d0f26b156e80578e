"""`export` and `upstream`: edits as adapters, merged models and cards, and the methods in a clone of EasyEdit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from . import options
from .session import print_json

_exports = typer.Typer(help="Write a saved edit as what other tools load: a LoRA adapter, a whole model, a model card.")


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.add_typer(_exports, name="export")
    app.command()(upstream)


Edit = Annotated[Path, typer.Argument(metavar="EDIT", help="What revs-tars edit wrote.")]
Folder = Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where to write.")]
Base = Annotated[str, typer.Option("--base-model", help="What card and adapter call the base: its hub id.")]
Result = Annotated[
    Path | None, typer.Option(metavar="JSON", help="A result of revs-tars evaluate, whose figures the card shows.")
]


@_exports.command()
def peft(
    *,
    context: typer.Context,
    file: Edit,
    output: Folder,
    base_model: Base = "",
    result: Result = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Write the edit as a LoRA adapter that plain peft, vLLM and others load, with a card beside it.

    Example: revs-tars export peft edit.safetensors -o adapter --base-model org/model
    """
    output = options.free(output, overwrite)
    from ..edits.edit_set import EditSet

    edits = EditSet.load(file)
    edits.to_peft(output, base_model)
    _write_card(edits, output, base_model, result, "adapter")
    _done(output, json, f"The adapter: {output}; PeftModel.from_pretrained(base, {str(output)!r}) loads it.")


@_exports.command()
def merged(
    *,
    context: typer.Context,
    file: Edit,
    output: Folder,
    model: Annotated[str | None, typer.Option("--model", "-m", help="The model that the edit was made for.")] = None,
    base: Annotated[
        str | None, typer.Option(help="In place of --model: the unpacked model, where it was made for a packed one.")
    ] = None,
    base_model: Base = "",
    result: Result = None,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Write the whole model with the edit in it, with a card beside it.

    With --base the weights are others than those that the edit was made for: measure what it came to with evaluate.

    Example: revs-tars export merged edit.safetensors --model ./my-model -o clean-model
    """
    if (model is None) == (base is None):
        raise InputError("Name the model by --model, or by --base where the edit was made for its packed form.")
    output = options.free(output, overwrite, model or base)
    from ..edits.edit_set import EditSet
    from .loading import load_model, save_model

    edits = EditSet.load(file)
    if base is not None and not edits.packed:
        raise InputError(f"{file} was made for a model as it is, not for a packed one; name that model by --model.")
    loaded = load_model(model or str(base), device, dtype, progress=not quiet)
    (edits.onto(loaded.model) if base is not None else edits).apply(loaded.model)
    save_model(loaded, output)
    _write_card(edits, output, base_model, result, "merged model")
    _done(output, json, f"The edited model: {output}")


@_exports.command()
def card(
    *,
    context: typer.Context,
    file: Edit,
    output: Folder,
    base_model: Base = "",
    result: Result = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Write a model card (README.md) for the edit: settings, figures, and what it shows to whom.

    Example: revs-tars export card edit.safetensors --result result.json -o adapter
    """
    options.free(output.expanduser() / "README.md", overwrite)
    from ..edits.edit_set import EditSet

    _write_card(EditSet.load(file), output, base_model, result, "edit file")
    _done(output / "README.md", json, f"The card: {output / 'README.md'}")


def upstream(
    *,
    context: typer.Context,
    clone: Annotated[Path, typer.Argument(metavar="CLONE", help="A git clone of EasyEdit's branch main.")],
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Put REVS and TARS into a clone of EasyEdit, as its README asks for methods, to be contributed there.

    Doing it again changes nothing; your own changes in these files are not overwritten.

    Example: revs-tars upstream ./EasyEdit
    """
    from ..host.upstream import install

    written = install(clone)
    if json:
        print_json({"written": [str(name) for name in written]})
        return
    for name in written:
        typer.echo(name)
    typer.echo(f"{len(written)} files changed; look at `git diff`, then commit.")


def _write_card(edits: object, folder: Path, base_model: str, result: Path | None, kind: str) -> None:
    from ..edits.edit_set import EditSet
    from ..report.model_card import model_card, write_card
    from ..report.results import read_result

    assert isinstance(edits, EditSet)
    figures: dict[str, Any] = {}
    if result is not None:
        content = read_result(result)
        if content["kind"] != "evaluation":
            raise InputError(f"{result} is a comparison; --result needs what revs-tars evaluate wrote.")
        try:
            figures = {moment: dict(content[moment]["summary"]) for moment in ("before", "after") if moment in content}
            figures["never_learned"] = dict(content["after"].get("controls", {}).get("never learned", {}))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{result} has no figures ({error}); it was changed, so measure again.") from error
    write_card(folder, model_card(edits, base_model=base_model, kind=kind, **figures))


def _done(place: Path, json: bool, said: str) -> None:
    if json:
        print_json({"written": str(place)})
    else:
        typer.echo(said)
