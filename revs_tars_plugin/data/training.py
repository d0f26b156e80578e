"""The loop that fine-tunes: whatever is learned, or unlearned, in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn


def fine_tune(
    model: nn.Module,
    losses: Callable[[], Iterator[Tensor]],
    *,
    epochs: int,
    learning_rate: float,
    parameters: Iterable[nn.Parameter] | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> None:
    """Takes a step of AdamW down every loss, in place, and leaves the model in evaluation mode without gradients.

    Args:
        model: A causal language model.
        losses: Goes through the data once; each loss is computed when it is asked for, after the step before it.
        epochs: How many times it is called.
        learning_rate: The learning rate; weights do not decay.
        parameters: What is trained; all of the model's by default.
        progress: Called after each epoch with its number and mean loss.
    """
    trained = model.parameters() if parameters is None else parameters
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.0)
    model.train()
    for epoch in range(epochs):
        values = []
        for loss in losses():
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            values.append(float(loss.detach()))
        if progress is not None:
            progress(epoch, sum(values) / len(values))
    model.eval()
    model.zero_grad(set_to_none=True)
