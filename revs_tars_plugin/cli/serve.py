"""`app`: a page on this machine that shows a model forgetting, by clicks."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from . import options


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(name="app")(serve)


def serve(
    *,
    folder: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where edits are written to; made where it is missing.")
    ] = Path(),
    model: Annotated[str | None, typer.Option("--model", "-m", help="Load this one at once.")] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="By default the first free one from 7860 on.")
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
    settings: options.Settings = None,
    text: options.Text = None,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    show_secrets: options.ShowSecrets = False,
    debug: options.Debug = False,
) -> None:
    """Open a page to try forgetting on: load a model, type what must go, see before and after, undo with a switch.

    It is served to this machine alone (127.0.0.1); whoever is logged in on it can open it. Ctrl-C ends it.

    Example: revs-tars app --model demo
    """
    folder = folder.expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--folder {folder} cannot be made ({error.strerror or error}); name another.") from error
    with tempfile.TemporaryDirectory(prefix="revs-tars-") as uploads:
        # Files that are given to the page hold secrets: only this user can read them, and they go with the program.
        os.environ["GRADIO_TEMP_DIR"] = uploads
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        try:
            from .page.layout import launch_options, page_of
        except ImportError as error:
            raise InputError(f"The page needs the extra app ({error}): pip install 'revs-tars-plugin[app]'.") from error
        from .page.workbench import Workbench

        workbench = Workbench(folder, device, dtype, settings, text)
        if model is not None:
            typer.echo(workbench.load(model))
        page = page_of(workbench, show_secrets=show_secrets)
        try:
            _, address, _ = page.launch(prevent_thread_lock=True, **launch_options(port, open_browser=open_browser))
        except OSError as error:
            raise InputError(f"The page cannot be served ({error}); name another --port.") from error
        typer.echo(f"The page: {address}; Ctrl-C ends it.")
        page.block_thread()
