"""Guidance: does the difference between two models tell what was taken out of one of them?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..model.forward import batches_by_length, continuation_logits
from ..requests.reading import tokenise_in_context
from .run import EvaluationRun


@torch.no_grad()
def guided_shares(
    model: nn.Module,
    other: nn.Module,
    tok: Any,
    prompts: Sequence[str],
    targets: Sequence[str],
    *,
    weight: float = 1.0,
) -> list[float]:
    """Returns for each secret the share of its tokens, from the first on, that guided decoding gives in a row.

    Guidance adds to the logits of `model` a multiple of what distinguishes them from those of `other` (arXiv
    2505.24379): with the model before its edit as `model` and the edited one as `other` it amplifies what was taken
    away; the other way round, with a model that never learned the secrets, what the edit left. Decoding ends where it
    leaves the secret.

    Args:
        model: The model that is guided.
        other: The model it is told from, of the same vocabulary.
        tok: The tokenizer of both.
        prompts: One prompt a secret.
        targets: The secrets.
        weight: What the difference is multiplied by.
    """
    pairs = [tokenise_in_context(tok, prompt, target) for prompt, target in zip(prompts, targets, strict=True)]
    shares: dict[int, float] = {}
    for batch in batches_by_length([prompt + target for prompt, target in pairs]):
        chosen = [pairs[index] for index in batch]
        both = zip(batch, continuation_logits(model, chosen), continuation_logits(other, chosen), strict=True)
        for index, own, others in both:
            target = pairs[index][1]
            best = (own + weight * (own - others.to(own.device))).argmax(dim=-1).tolist()
            right = next((place for place, token in enumerate(target) if best[place] != token), len(target))
            shares[index] = right / len(target)
    return [shares[index] for index in range(len(pairs))]


def measure_guided(run: EvaluationRun) -> None:
    """Guides the model away from one that never learned the secrets, where such a model is given."""
    if run.never_learned is None:
        return
    shares = guided_shares(run.model, run.never_learned, run.tok, run.asked(run.prompts), run.targets)
    run.note("guidance", [float(share == 1) for share in shares])
