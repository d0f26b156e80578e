"""`open-unlearning`: a script of that framework with REVS and TARS among its trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    # What follows the script is the script's own: hydra's overrides.
    app.command("open-unlearning", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
        open_unlearning
    )


def open_unlearning(
    context: typer.Context,
    script: Annotated[Path, typer.Argument(metavar="SCRIPT", help="The checkout's src/train.py.")],
    debug: options.Debug = False,
) -> None:
    """Run a script of open-unlearning in which trainer.handler may be REVS, TARS or FT-L-delete.

    What follows the script goes to it. trainer.method_args may name settings (a YAML or a packaged name) and single
    ones. The edited model is saved and evaluated as that framework does it.

    Example: revs-tars open-unlearning src/train.py --config-name=unlearn.yaml trainer=finetune trainer.handler=REVS
    """
    from ..yardsticks.unlearning_trainer import run_script

    run_script(script, context.args)
