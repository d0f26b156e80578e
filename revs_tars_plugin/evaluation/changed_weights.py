"""Weights that are other ones for a while: what attacks do that change the model first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


def linear_weights(model: nn.Module) -> Iterator[tuple[Tensor, int]]:
    """Yields the weight of each linear layer but the head, with the dimension that counts its output channels."""
    head = model.get_output_embeddings().weight  # type: ignore[operator]
    for module in model.modules():
        if isinstance(module, (nn.Linear, Conv1D)) and module.weight is not head:
            yield module.weight, 1 if isinstance(module, Conv1D) else 0


@contextmanager
def replaced_weights(changes: Iterable[tuple[Tensor, Callable[[Tensor], Tensor]]]) -> Iterator[None]:
    """Puts other values into weights while a `with` block lasts, and every bit back.

    Args:
        changes: Weights, each once, with what makes the new value of the old one.
    """
    before: list[tuple[Tensor, Tensor]] = []
    try:
        with torch.no_grad():
            for weight, change in changes:
                new = change(weight.detach())
                before.append((weight, weight.detach().clone()))
                weight.copy_(new)
        yield
    finally:
        with torch.no_grad():
            for weight, old in before:
                weight.copy_(old)
