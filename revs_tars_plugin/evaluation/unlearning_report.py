"""The result of an evaluation, for machines and for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..formatting import headings_of, markdown_table, readable

_DIGITS = 4


@dataclass(frozen=True, kw_only=True)
class UnlearningReport:
    """What `evaluate_unlearning` found; no secret's text is in it.

    Attributes:
        summary: Every metric over all secrets, by name; the table in `metrics.py` says which direction is good.
        rows: For each secret, in the order given, its own figures by name.
        concepts: For each concept, in the order given, its own figures by name.
        settings: What decides the figures: k, seed, how many samples, which attacks.
        ranks: For each secret the rank of its best-hidden token at every layer's residual; empty where no layer was
            read.
        divergences: KL(original || edited) at every position of ordinary text, in nats; empty without such text.
        controls: By the name of another model the figures of that one which these have to be compared with.
    """

    summary: Mapping[str, float]
    rows: tuple[Mapping[str, Any], ...]
    concepts: tuple[Mapping[str, Any], ...]
    settings: Mapping[str, Any]
    ranks: tuple[tuple[int, ...], ...] = ()
    divergences: tuple[float, ...] = ()
    controls: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain lists and dictionaries, fit for JSON."""
        return {
            "summary": dict(self.summary),
            "secrets": [dict(row) for row in self.rows],
            "concepts": [dict(row) for row in self.concepts],
            "settings": dict(self.settings),
            "ranks": [list(layers) for layers in self.ranks],
            "divergences": [float(f"{value:.4g}") for value in self.divergences],
            "controls": {name: dict(figures) for name, figures in self.controls.items()},
        }

    def to_markdown(self) -> str:
        """Returns tables: the summary, a line for every secret, and one for every concept."""
        lines = markdown_table(
            ["metric", "value", *self.controls],
            [
                [name, *(readable(figures.get(name), _DIGITS) for figures in (self.summary, *self.controls.values()))]
                for name in self.summary
            ],
        )
        lines += [*_table("secret", self.rows), *_table("concept", self.concepts)]
        return "\n".join(lines) + "\n"


def _table(label: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line a row, with a column for every figure that any row has."""
    if not rows:
        return []
    columns = headings_of(rows)
    cells = [[str(index), *(readable(row.get(name), _DIGITS) for name in columns)] for index, row in enumerate(rows)]
    return ["", *markdown_table([label, *columns], cells)]
