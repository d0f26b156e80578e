"""`demo` and `run`: through EasyEdit itself."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from . import options
from .demo import show_demo


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(demo)
    # What stands behind the script is the script's own, --help and --debug as well.
    app.command(context_settings={"allow_extra_args": True, "allow_interspersed_args": False})(run)


def demo(*, context: typer.Context, json: options.Json = False, debug: options.Debug = False) -> None:
    """Let a real model forget four facts and lose a concept, through EasyEdit, and show what it says before and after.

    Takes half a minute on 2 cores and nothing but the packages: the model comes from a PyPI wheel.

    Example: revs-tars demo
    """
    show_demo(as_json=json)


def run(
    *,
    context: typer.Context,
    script: Annotated[Path, typer.Argument(metavar="SCRIPT", help="A Python script that uses EasyEdit, unchanged.")],
    debug: options.Debug = False,
) -> None:
    """Run a script that uses EasyEdit with REVS and TARS registered; ARGS behind it are the script's own.

    Our own options stand in front of the script.

    Example: revs-tars run EasyEdit/examples/run_knowedit_llama2.py --editing_method=FT ...
    """
    if not script.is_file():
        raise InputError(f"There is no script {script}; name a Python file.")
    from ..host import register

    register()
    kept = sys.argv, sys.path[:]
    sys.argv = [str(script), *context.args]
    sys.path.insert(0, str(script.resolve().parent))  # as Python does for a script
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as leaving:
        code = leaving.code
        if code:
            if not isinstance(code, int):
                typer.echo(code, err=True)
            raise typer.Exit(code if isinstance(code, int) else 1) from None
    finally:
        sys.argv, sys.path[:] = kept
