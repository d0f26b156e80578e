"""What one run of a command shares: what may be shown, how results are printed, and goals."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from ..data.secret_files import SecretRecord
from ..errors import InputError, did_you_mean
from ..formatting import print_tables, table_of_rows
from ..report.redaction import Redactor, redactor_of


class Session:
    """One run.

    Attributes:
        debug: Whether an error shows where it happened.
        redact: Masks what must not be shown; everything that is printed goes through it.
        log_handler: Writes the library's log to standard error, masked too.
    """

    def __init__(self) -> None:
        """Starts with nothing to mask."""
        self.debug = False
        self.redact = Redactor()
        self.log_handler = logging.StreamHandler(sys.stderr)
        self.log_handler.setFormatter(_MaskingFormatter(self))

    def mask(self, secrets: Sequence[SecretRecord], others: Sequence[str] = ()) -> None:
        """Masks secrets from here on, and other texts that look like some, unless secrets are shown."""
        self.redact = redactor_of(secrets, others=others, show=self.redact.show)


class _MaskingFormatter(logging.Formatter):
    def __init__(self, session: Session) -> None:
        super().__init__("%(levelname)s: %(message)s")
        self._session = session

    def format(self, record: logging.LogRecord) -> str:
        return self._session.redact(super().format(record))


def session_of(context: typer.Context) -> Session:
    """Returns the run that a command belongs to."""
    session = context.find_root().obj
    assert isinstance(session, Session)
    return session


def print_json(content: Any) -> None:
    """Prints for machines."""
    typer.echo(json.dumps(content, indent=1, ensure_ascii=False))


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints rows of figures and short texts; figures stand on the right."""
    print_tables(table_of_rows(title, rows))


_GOAL = re.compile(r"\s*(?P<name>[^<>=]+?)\s*(?P<sign><=|>=)\s*(?P<bound>\S+)\s*")


def check_goals(goals: Sequence[str], figures: Mapping[str, float]) -> None:
    """Ends the run with exit code 1 where a figure misses its goal, naming each that does.

    Raises:
        InputError: When a goal names no figure, or is not written as `NAME>=NUMBER` or `NAME<=NUMBER`.
    """
    missed = []
    for name, sign, bound in map(parsed_goal, goals):
        if name not in figures:
            raise InputError(
                f'--require names "{name}", which was not measured{did_you_mean(name, figures)} '
                f"(measured: {', '.join(figures)})"
            )
        value = figures[name]
        if not (value >= bound if sign == ">=" else value <= bound):
            missed.append(f"{name} is {value:.4g}, required {sign} {bound:g}")
    if missed:
        typer.echo("goal not met: " + "; ".join(missed), err=True)
        raise typer.Exit(1)


def check_goal_names(goals: Sequence[str], names: Sequence[str]) -> None:
    """Refuses goals for figures that there are not; before any work, where it is known which there are.

    Raises:
        InputError: Naming the goal's figure.
    """
    for name, _, _ in map(parsed_goal, goals):
        if name not in names:
            raise InputError(f'--require names "{name}", which is not measured{did_you_mean(name, names)}')


def parsed_goal(goal: str) -> tuple[str, str, float]:
    """Reads `NAME>=NUMBER`; commands do so before any work."""
    parts = _GOAL.fullmatch(goal)
    try:
        if parts is None:
            raise ValueError
        return parts["name"], parts["sign"], float(parts["bound"])
    except ValueError as error:
        raise InputError(
            f'--require is "{goal}"; write a figure, >= or <=, and a number, as in "exposure, top<=2".'
        ) from error
