"""`report`: a result as a page that people look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .session import print_json


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(report)


def report(
    *,
    context: typer.Context,
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULT...",
            help="What evaluate, compare (one of each at most) and bench (benchmark.json) wrote with -o.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="HTML", help="The page.")],
    title: Annotated[str, typer.Option(help="Its heading.")] = "What the model forgot",
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    show_secrets: options.ShowSecrets = False,
    debug: options.Debug = False,
) -> None:
    """Draw results as one HTML page that needs nothing else: figures, ranks in every layer, attacks, cost.

    Secrets are masked, unless both this command and the one that measured were given --show-secrets.

    Example: revs-tars report result.json comparison.json lume/benchmark.json -o report.html
    """
    output = options.free(output, overwrite, *results)
    from ..report.html import write_report
    from ..report.results import read_result

    write_report([read_result(file) for file in results], output, title=title, show_secrets=show_secrets)
    if json:
        print_json({"written": str(output)})
    else:
        typer.echo(f"The report: {output}")
