"""The loop that fine-tunes: whatever is learned, or unlearned, in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import torch
from torch import Tensor, nn


def fine_tune(
    model: nn.Module,
    losses: Callable[[], Iterator[Tensor]],
    *,
    epochs: int,
    learning_rate: float,
    parameters: Iterable[nn.Parameter] | None = None,
    accumulated: int = 1,
    progress: Callable[[int, float], None] | None = None,
) -> None:
    """Takes steps of AdamW down the losses, in place, and leaves the model in evaluation mode without gradients.

    Args:
        model: A causal language model.
        losses: Goes through the data once; each loss is computed when it is asked for, so after the step before it.
        epochs: How many times it is called.
        learning_rate: The learning rate; weights do not decay.
        parameters: What is trained; all of the model's by default.
        accumulated: How many losses' mean a step goes down; fewer are left for an epoch's last one.
        progress: Called after each epoch with its number and mean loss.
    """
    trained = list(model.parameters() if parameters is None else parameters)
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.0)
    model.train()
    for epoch in range(epochs):
        values = []
        waiting = losses()
        while group := _gradients(islice(waiting, accumulated), optimizer):
            for parameter in trained:
                if len(group) > 1 and parameter.grad is not None:
                    parameter.grad.div_(len(group))
            optimizer.step()
            values.extend(group)
        if progress is not None:
            progress(epoch, sum(values) / len(values))
    model.eval()
    model.zero_grad(set_to_none=True)


def _gradients(losses: Iterator[Tensor], optimizer: torch.optim.Optimizer) -> list[float]:
    """Leaves the sum of the losses' gradients in the parameters, and returns the losses."""
    optimizer.zero_grad(set_to_none=True)
    values = []
    for loss in losses:
        loss.backward()  # type: ignore[no-untyped-call]
        values.append(float(loss.detach()))
    return values
