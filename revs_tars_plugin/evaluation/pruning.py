"""Does a secret come back when the smallest weights of the edited model are set to zero?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ..errors import InputError
from .changed_weights import linear_weights, replaced_weights
from .run import EvaluationRun

_SHARES = (0.1, 0.2, 0.3)


@contextmanager
def pruned(model: nn.Module, share: float) -> Iterator[None]:
    """Sets the smallest weights of each linear layer but the head to zero while a `with` block lasts.

    Args:
        model: A causal language model.
        share: Which share of each matrix goes, by absolute value; 0 to 1.

    Raises:
        InputError: When the share is out of range.
    """
    if not 0 <= share < 1:
        raise InputError(f"share is {share}; it must be at least 0 and below 1.")

    def pruned_weight(weight: torch.Tensor) -> torch.Tensor:
        count = int(share * weight.numel())
        if not count:
            return weight.clone()
        sizes = weight.abs().float().flatten()
        return torch.where(sizes.reshape(weight.shape) <= sizes.kthvalue(count).values, 0.0, weight).to(weight.dtype)

    with replaced_weights((weight, pruned_weight) for weight, _ in linear_weights(model)):
        yield


def measure_pruned(run: EvaluationRun) -> None:
    """Scores the secrets at the output of the pruned model."""
    for share in _SHARES:
        with pruned(run.model, share):
            run.score(f"pruning, {share:.0%}", run.prompts, run.everyone)
