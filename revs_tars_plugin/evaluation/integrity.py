"""What an edit cost: how far the next-token distributions of unrelated prompts have moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..decoder import next_token_logits


def next_token_log_probabilities(
    model: nn.Module, tok: Any, prompts: Sequence[str], batch_size: int = 8
) -> Float[Tensor, "n vocabulary"]:
    """Returns the log-probabilities of every token after each prompt, in nats, float32, on the CPU."""
    sequences = [tok(prompt)["input_ids"] for prompt in prompts]
    parts = [
        next_token_logits(model, sequences[start : start + batch_size]).log_softmax(dim=-1).cpu()
        for start in range(0, len(sequences), batch_size)
    ]
    return torch.cat(parts)


def kl_divergence(
    original: Float[Tensor, "n vocabulary"], edited: Float[Tensor, "n vocabulary"]
) -> Float[Tensor, " n"]:
    """Returns KL(original || edited) in nats for each row of log-probabilities."""
    return (original.exp() * (original - edited)).sum(dim=-1)
