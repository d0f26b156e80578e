"""Hyper-parameters of FT-L-delete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..errors import InputError
from ..hyperparams import UnlearnHyperParams


@dataclass
class FTLDeleteHyperParams(UnlearnHyperParams):
    """Settings of FT-L-delete, under the names of the host's FT.

    Attributes:
        num_steps: The most passes over the requests.
        lr: Adam's learning rate.
        norm_constraint: How far any single weight may move (L-infinity).
        goal_probability: Training stops when the tokens of every secret have at most this mean probability.
    """

    num_steps: int = 25
    lr: float = 5e-4
    norm_constraint: float = 1e-3
    goal_probability: float = 0.01

    ALGORITHM: ClassVar[str] = "FT-L-delete"

    def validate(self) -> None:
        """Checks the settings; see the base class."""
        super().validate()
        if self.num_steps < 1:
            raise InputError(f"num_steps is {self.num_steps}; it must be at least 1.")
        for name in ("lr", "norm_constraint"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be above 0.")
        if not 0 < self.goal_probability < 1:
            raise InputError(f"goal_probability is {self.goal_probability}; it must lie between 0 and 1.")
