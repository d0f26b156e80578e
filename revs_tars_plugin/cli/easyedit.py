"""`demo` and `run`: through EasyEdit itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..errors import InputError
from . import options
from .demo import show_demo


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(demo)
    # What stands behind the script is the script's own, --help and --debug as well.
    app.command(context_settings={"allow_extra_args": True, "allow_interspersed_args": False})(run)


def demo(
    *,
    context: typer.Context,
    model: Annotated[
        Literal["smollm2", "gemma"],
        typer.Option("--model", "-m", help="SmolLM2-135M, or Gemma 3 270M of the extra gemma, under its terms of use."),
    ] = "smollm2",
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Let a real model forget four facts and lose a concept, through EasyEdit, and show what it says before and after.

    Takes half a minute on 2 cores (Gemma: ten minutes the first time) and nothing but the packages: the model comes
    from a PyPI wheel.

    Example: revs-tars demo
    """
    show_demo(model, as_json=json)


def run(
    *,
    context: typer.Context,
    script: Annotated[Path, typer.Argument(metavar="SCRIPT", help="A Python script that uses EasyEdit, unchanged.")],
    forget: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="The field of the script's JSON records that holds what is forgotten."),
    ] = None,
    keep: Annotated[bool, typer.Option(help="Let edits stay where the script does not say sequential_edit.")] = False,
    debug: options.Debug = False,
) -> None:
    """Run a script that uses EasyEdit with REVS and TARS among its methods; ARGS behind it are the script's own.

    Our own options stand in front of the script. Where it chooses MEMIT by name it can choose ours, too. EasyEdit's
    scripts pass the new answer alone: --forget ground_truth (answers, in ZsRE's file) says which one is forgotten.

    Example: revs-tars run --forget ground_truth EasyEdit/examples/run_knowedit_llama2.py --editing_method=REVS ...
    """
    if not script.is_file():
        raise InputError(f"There is no script {script}; name a Python file.")
    from ..host.scripts import run_script

    try:
        run_script(script, context.args, forget=forget, keep=keep)
    except SystemExit as leaving:
        code = leaving.code
        if code:
            if not isinstance(code, int):
                typer.echo(code, err=True)
            raise typer.Exit(code if isinstance(code, int) else 1) from None
