"""Hyper-parameters of MEMIT-delete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...errors import InputError
from ...hyperparams import UnlearnHyperParams


@dataclass
class MEMITDeleteHyperParams(UnlearnHyperParams):
    """Settings of MEMIT-delete, under the names of the host's MEMIT, which reads them as its own.

    Attributes:
        layer_selection: "all"; the host's MEMIT knows no other.
        fact_token: Where in the prompt the value is written: "subject_last", the last token of the subject.
        v_num_grad_steps: The most steps of the search for a value.
        v_lr: Adam's learning rate in it.
        v_weight_decay: Weight of the value's length, relative to the state it is added to.
        clamp_norm_factor: The value's greatest length, relative to the state it is added to.
        kl_factor: Weight of what else is said of the subject.
        mom2_adjustment: Taken for the host's sake; MEMIT always uses second moments.
        mom2_update_weight: Their weight against the keys of the requests.
        goal_probability: The search stops when the secret's tokens have at most this mean probability.
    """

    layer_selection: Literal["all"] = "all"
    fact_token: Literal["subject_last"] = "subject_last"
    v_num_grad_steps: int = 25
    v_lr: float = 0.5
    v_weight_decay: float = 1e-3
    clamp_norm_factor: float = 4.0
    kl_factor: float = 0.0625
    mom2_adjustment: bool = True
    mom2_update_weight: float = 15000.0
    goal_probability: float = 0.01

    ALGORITHM: ClassVar[str] = "MEMIT-delete"

    def validate(self) -> None:
        """Checks the settings; see the base class."""
        super().validate()
        if not self.layers:
            raise InputError("layers is empty; name the layers that MEMIT spreads the change over.")
        if self.v_num_grad_steps < 1:
            raise InputError(f"v_num_grad_steps is {self.v_num_grad_steps}; it must be at least 1.")
        for name in ("v_lr", "clamp_norm_factor", "mom2_update_weight"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be above 0.")
        if not 0 < self.goal_probability < 1:
            raise InputError(f"goal_probability is {self.goal_probability}; it must lie between 0 and 1.")
