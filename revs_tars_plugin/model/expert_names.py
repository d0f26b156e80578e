"""The names of experts' weights, which have none of their own: the parameter's, and which expert of how many."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = re.compile(r"(?P<parameter>.+)\[(?P<expert>\d{1,6}) of (?P<count>\d{1,6})\]")


@dataclass(frozen=True)
class ExpertName:
    """One expert's part of a parameter that holds the matrices of all: "model.layers.0.mlp.experts.down_proj[3 of 8]".

    Attributes:
        parameter: The parameter's name in the model.
        expert: Which expert, from 0.
        count: How many there are.
    """

    parameter: str
    expert: int
    count: int

    @classmethod
    def of(cls, name: str) -> ExpertName | None:
        """Reads a weight's name; None where it names a whole parameter."""
        found = _NAME.fullmatch(name)
        return None if found is None else cls(found["parameter"], int(found["expert"]), int(found["count"]))

    @classmethod
    def whole(cls, name: str) -> str:
        """Returns the name of the parameter that holds a weight: its own, or of an expert's that of all."""
        found = cls.of(name)
        return name if found is None else found.parameter

    def __str__(self) -> str:
        """Returns the weight's name."""
        return f"{self.parameter}[{self.expert} of {self.count}]"
