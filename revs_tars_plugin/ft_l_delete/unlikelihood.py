"""What fine-tuning methods minimise to make a model forget: the unlikelihood of what it should not say."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..model.forward import continuation_logits


def unlikelihood(
    model: nn.Module, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> tuple[Float[Tensor, ""], Float[Tensor, " n"]]:
    """Returns the mean over pairs and tokens of `-log(1 - p(token | what is before it))`, with its gradient.

    Where a token has become unlikely there is nothing left to gain, so the loss does not run away as `log p` does
    (Welleck et al., arXiv 1908.04319).

    Args:
        model: A causal language model.
        pairs: Token ids of prompts and of what must not follow, one batch.

    Returns:
        The loss, and for each pair the mean probability of its tokens, without gradient.
    """
    losses, probabilities = [], []
    for (_, target), logits in zip(pairs, continuation_logits(model, pairs, gradients=True), strict=True):
        tokens = torch.tensor(list(target), device=logits.device)
        log_probabilities = logits.log_softmax(dim=-1).gather(1, tokens[:, None])[:, 0]
        # log(1 - p) without losing what is left where p is almost 1.
        losses.append(-torch.log(-torch.expm1(log_probabilities.clamp(max=-1e-6))).mean())
        probabilities.append(log_probabilities.detach().exp().mean())
    return torch.stack(losses).mean(), torch.stack(probabilities)
