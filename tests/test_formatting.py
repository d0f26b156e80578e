"""Figures and tables as people read them."""

import io

import pytest
from rich.console import Console

from revs_tars_plugin.formatting import headings_of, markdown_table, readable, terminal_table


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (True, "yes"), (False, "no"), (0.123456, "0.123"), (12, "12"), ([1, "a"], "1, a"), ("word", "word")],
)
def test_values_are_readable(value, text):
    assert readable(value) == text
    assert readable(0.123456, digits=5) == "0.12346"


def test_headings_are_those_of_any_row_in_order():
    assert headings_of([{"a": 1, "b": 2}, {"c": 3, "a": 4}]) == ["a", "b", "c"]


def test_a_markdown_table_fills_short_rows_up_and_puts_figures_on_the_right():
    assert markdown_table(["", "x", "y"], [["one", "1", "2"], ["two"]]) == [
        "|  | x | y |",
        "|---|---:|---:|",
        "| one | 1 | 2 |",
        "| two |  |  |",
    ]
    assert markdown_table(["", "x"], [], figures=False)[1] == "|---|---|"


def printed(table, width):
    output = io.StringIO()
    Console(width=width, file=output).print(table)
    return output.getvalue()


def test_a_terminal_table_shows_brackets_as_they_are_and_folds_instead_of_cutting():
    """A secret's prompt may hold what looks like markup."""
    table = terminal_table("title", ["name", "text"], [["[red]", "word " * 30]], left=["text"])
    text = printed(table, 40)
    assert "[red]" in text
    assert text.count("word") == 30
    assert "…" not in text


def test_figures_stay_in_one_line_where_they_must():
    rows = [["a long name of something", "0.123 -> 1e-05"]]
    assert "0.123 -> 1e-05" in printed(terminal_table("", ["name", "figure"], rows, unbroken=True), 34)
