"""Printing the figures of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def show(title: str, rows: Sequence[dict[str, Any]], *, decimals: int, width: int) -> None:
    """Prints one line a row, with numbers of so many decimals."""
    table = Table(title=title)
    for key in rows[0]:
        table.add_column(key, justify="right")
    for row in rows:
        table.add_row(*(f"{cell:.{decimals}f}" if isinstance(cell, float) else str(cell) for cell in row.values()))
    Console(width=width).print(table)
