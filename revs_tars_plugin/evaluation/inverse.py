"""Inverse greedy decoding: does a secret come out when the least likely token is taken again and again?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..model.forward import batches_by_length, continuation_logits
from ..requests.reading import tokenise_in_context
from .run import EvaluationRun


@torch.no_grad()
def inverse_shares(model: nn.Module, tok: Any, prompts: Sequence[str], targets: Sequence[str]) -> list[float]:
    """Returns for each secret the share of its tokens, from the first on, that the least likely token gives in a row.

    A demotion to the very bottom can be read off there (arXiv 2608.29943). Decoding ends where it leaves the secret, so
    the secret's own beginning is what it goes on from.

    Args:
        model: A causal language model.
        tok: Its tokenizer.
        prompts: One prompt a secret.
        targets: The secrets.
    """
    pairs = [tokenise_in_context(tok, prompt, target) for prompt, target in zip(prompts, targets, strict=True)]
    shares: dict[int, float] = {}
    for batch in batches_by_length([prompt + target for prompt, target in pairs]):
        for index, logits in zip(batch, continuation_logits(model, [pairs[index] for index in batch]), strict=True):
            target = pairs[index][1]
            least = logits.argmin(dim=-1).tolist()
            right = next((place for place, token in enumerate(target) if least[place] != token), len(target))
            shares[index] = right / len(target)
    return [shares[index] for index in range(len(pairs))]


def measure_inverse(run: EvaluationRun) -> None:
    """Decodes every secret from the bottom."""
    shares = inverse_shares(run.model, run.tok, run.asked(run.prompts), run.targets)
    run.note("inverse greedy", [float(share == 1) for share in shares])
