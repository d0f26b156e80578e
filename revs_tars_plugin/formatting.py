"""Figures and tables as people read them: plain, in Markdown, and on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

# Columns of characters where the output is no terminal.
_WIDTH = 118


def readable(value: Any, digits: int = 3) -> str:
    """Returns a value with few digits, yes or no for a truth value, and nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def headings_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the headings that any row has, in the order in which they first occur."""
    return list(dict.fromkeys(name for row in rows for name in row))


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, figures: bool = True) -> list[str]:
    """Returns the lines of a Markdown table; short rows are filled up.

    Args:
        headings: The headings of its columns.
        rows: Its cells.
        figures: Whether all columns but the first hold figures, which stand on the right.
    """
    others = ("|---:" if figures else "|---") * (len(headings) - 1)
    lines = ["| " + " | ".join(headings) + " |", "|---" + others + "|"]
    for row in rows:
        cells = [*row, *[""] * (len(headings) - len(row))]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def terminal_table(
    title: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left: Collection[str] = (),
    lines: bool = False,
    unbroken: bool = False,
) -> Table:
    """Returns a table for a terminal.

    Args:
        title: What stands above it.
        headings: The headings of its columns.
        rows: Cells as they are shown; short rows are filled up.
        left: Headings of the columns that stand on the left; the first one does in any case.
        lines: Whether a line stands between rows.
        unbroken: Whether the cells on the right are never broken over two lines.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, show_lines=lines)
    for index, heading in enumerate(headings):
        at_left = not index or heading in left
        table.add_column(
            heading,
            justify="left" if at_left else "right",
            overflow="fold",
            # A first column without a heading holds names.
            no_wrap=not heading or (unbroken and not at_left),
        )
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def table_of_rows(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    cell: Callable[[Any], str] = readable,
    lines: bool = False,
    unbroken: bool = False,
) -> Table:
    """Returns a table for a terminal of rows by their headings: texts stand on the left, figures on the right.

    Args:
        title: What stands above it.
        rows: Values by headings; what a row lacks is empty.
        cell: How a value is shown.
        lines: See `terminal_table`.
        unbroken: See `terminal_table`.
    """
    headings = headings_of(rows)
    texts = [name for name in headings if any(isinstance(row.get(name), str) for row in rows)]
    cells = [[cell(row.get(name)) for name in headings] for row in rows]
    return terminal_table(title, headings, cells, left=texts, lines=lines, unbroken=unbroken)


def print_tables(*tables: Table, width: int = _WIDTH) -> None:
    """Prints tables as wide as the terminal is, or so many characters wide where the output is none."""
    from rich.console import Console

    console = Console()
    console = console if console.is_terminal else Console(width=width)
    for table in tables:
        console.print(table)
