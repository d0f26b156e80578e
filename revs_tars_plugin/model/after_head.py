"""What a model does with its head's logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class AfterHead:
    """What a model does with its head's logits. No rank changes by it, but probabilities do.

    Attributes:
        factor: What they are multiplied by: Granite's and Cohere's scaling.
        cap: What none of them gets beyond, by a hyperbolic tangent: Gemma 2's; None where there is none.
    """

    factor: float = 1.0
    cap: float | None = None

    @classmethod
    def of_config(cls, config: Any) -> AfterHead:
        """Reads both where transformers' configs have them."""
        factor = getattr(config, "logit_scale", None) or 1.0
        factor /= getattr(config, "logits_scaling", None) or 1.0
        return cls(float(factor), getattr(config, "final_logit_softcapping", None))

    def of(self, logits: Float[Tensor, "n vocabulary"]) -> Float[Tensor, "n vocabulary"]:
        """Returns what the model makes of the head's logits."""
        scaled = logits if self.factor == 1 else logits * self.factor
        return scaled if self.cap is None else self.cap * torch.tanh(scaled / self.cap)
