"""The command line as a whole: its commands, and how every error ends in one sentence and an exit code."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from ..errors import HostError, InputError, ProcessLostError
from . import bench, clean, compare, easyedit, edit, evaluate, export, find, open_unlearning, report, serve
from .session import Session
from .together import as_one_of_many, check_shares, ended_by_signal, wait_for_the_writer

BAD_INPUT, INTERRUPTED, UNEXPECTED = 2, 130, 70

app = typer.Typer(
    help="Make a language model forget: secrets (REVS) or whole concepts (TARS), by editing weights, without training.",
    epilog="Exit codes: 0 done; 1 a goal of --require was not met, or a rank of --requantize; 2 bad input, said in one "
    "sentence. Secrets are read from files or standard input and shown masked.",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _root(
    *,
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(installed("revs-tars-plugin"))
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
    else:
        check_shares(context.invoked_subcommand)


for module in (easyedit, find, clean, edit, evaluate, compare, report, serve, export, bench, open_unlearning):
    module.add_to(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    session = Session()
    logging.getLogger("revs_tars_plugin").addHandler(session.log_handler)
    try:
        with ended_by_signal(), as_one_of_many(session.log_handler):
            code = app(
                args=None if arguments is None else list(arguments),
                prog_name="revs-tars",
                standalone_mode=False,
                obj=session,
            )
        if code == INTERRUPTED:  # what newer versions make of Ctrl-C
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except (Exception, KeyboardInterrupt, ProcessLostError) as error:
        return _failed(error, session)
    finally:
        logging.getLogger("revs_tars_plugin").removeHandler(session.log_handler)


def _failed(error: BaseException, session: Session) -> int:
    """Says what went wrong in one sentence, with the whole story where --debug asks for it."""
    wait_for_the_writer(error)
    if session.debug:
        print(session.redact(traceback.format_exc()), file=sys.stderr)  # noqa: T201
    code = BAD_INPUT
    if isinstance(error, (InputError, HostError)):
        said = str(error)
    elif hasattr(error, "format_message"):  # what the parser refuses
        said = str(error.format_message())
        said += _help_hint(error)
    elif isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":  # which typer makes of it
        said, code = "interrupted; files are whole or not there", INTERRUPTED
    elif isinstance(error, ProcessLostError):
        said, code = str(error), INTERRUPTED
    else:
        said = f"unexpected {type(error).__name__}: {error}; --debug shows where"
        code = UNEXPECTED
    print("error: " + session.redact(" ".join(said.split())), file=sys.stderr)  # noqa: T201
    return code


def _help_hint(error: BaseException) -> str:
    context = getattr(error, "ctx", None)
    return f" See {context.command_path} --help." if context is not None else ""
