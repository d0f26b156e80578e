"""What a model says in the places of a secret's tokens: one pass a batch, whatever is read off it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..model.forward import batches_by_length, continuation_logits
from ..requests.reading import tokenise_in_context


@torch.no_grad()
def target_logits(
    model: nn.Module, tok: Any, prompts: Sequence[str], targets: Sequence[str], batch_size: int | None = None
) -> Iterator[tuple[int, tuple[int, ...], Float[Tensor, "tokens vocabulary"]]]:
    """Yields for each secret its place in the list, its tokens, and the logits that speak of them; sorted by length.

    Args:
        model: A causal language model.
        tok: Its tokenizer.
        prompts: One prompt a secret.
        targets: The secrets.
        batch_size: The most sequences of a pass.
    """
    pairs = [tokenise_in_context(tok, prompt, target) for prompt, target in zip(prompts, targets, strict=True)]
    for batch in batches_by_length([prompt + target for prompt, target in pairs], most=batch_size):
        for index, logits in zip(batch, continuation_logits(model, [pairs[index] for index in batch]), strict=True):
            yield index, pairs[index][1], logits


def share_in_a_row(said: Sequence[int], target: Sequence[int]) -> float:
    """Returns the share of a secret's tokens, from the first on, that were said before the first other one."""
    right = next((place for place, token in enumerate(target) if said[place] != token), len(target))
    return right / len(target)
