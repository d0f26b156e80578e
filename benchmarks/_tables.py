"""Printing the figures of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from revs_tars_plugin.formatting import print_tables, terminal_table


def show(title: str, rows: Sequence[dict[str, Any]], *, decimals: int, width: int) -> None:
    """Prints one line a row, with numbers of so many decimals."""
    cells = [
        [f"{cell:.{decimals}f}" if isinstance(cell, float) else str(cell) for cell in row.values()] for row in rows
    ]
    print_tables(terminal_table(title, list(rows[0]), cells), width=width)
