"""Making a model know given sentences by heart: the start of every experiment on memorised secrets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn


def memorise(
    model: nn.Module,
    tok: Any,
    texts: Sequence[str],
    *,
    epochs: int = 12,
    learning_rate: float = 5e-5,
    batch_size: int = 8,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> None:
    """Fine-tunes all weights on the texts, in place.

    Args:
        model: A causal language model.
        tok: Its tokenizer.
        texts: Whole sentences, each with its secret.
        epochs: Passes over the texts.
        learning_rate: Of AdamW.
        batch_size: Texts a step.
        seed: Seed of the order of the texts.
        progress: Called after each epoch with its number and mean loss.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    sequences = [torch.tensor(tok(text)["input_ids"]) for text in texts]
    device = next(model.parameters()).device
    model.train()
    for epoch in range(epochs):
        losses = []
        for chosen in torch.split(torch.randperm(len(sequences), generator=generator), batch_size):
            rows = [sequences[index] for index in chosen.tolist()]
            ids = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
            labels = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100).to(device)
            loss = model(input_ids=ids, attention_mask=(labels != -100).long(), labels=labels).loss
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        if progress is not None:
            progress(epoch, sum(losses) / len(losses))
    model.eval()
    optimizer.zero_grad(set_to_none=True)
