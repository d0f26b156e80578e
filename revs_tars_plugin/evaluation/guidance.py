"""Guidance: does the difference between two models tell what was taken out of one of them?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from .run import EvaluationRun
from .target_logits import share_in_a_row, target_logits


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
    shares = {}
    both = zip(*(target_logits(each, tok, prompts, targets) for each in (model, other)), strict=True)
    for (index, target, own), (_, _, others) in both:
        guided = own + weight * (own - others.to(own.device))
        shares[index] = share_in_a_row(guided.argmax(dim=-1).tolist(), target)
    return [shares[index] for index in range(len(targets))]


def measure_guided(run: EvaluationRun) -> None:
    """Guides the model away from one that never learned the secrets, where such a model is given."""
    if run.never_learned is None:
        return
    shares = guided_shares(run.model, run.never_learned, run.tok, run.asked(run.prompts), run.targets)
    run.note("guidance", [float(share == 1) for share in shares])
