"""Inverse greedy decoding: does a secret come out when the least likely token is taken again and again?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from .run import EvaluationRun
from .target_logits import share_in_a_row, target_logits


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
    shares = {
        index: share_in_a_row(logits.argmin(dim=-1).tolist(), target)
        for index, target, logits in target_logits(model, tok, prompts, targets)
    }
    return [shares[index] for index in range(len(targets))]


def measure_inverse(run: EvaluationRun) -> None:
    """Decodes every secret from the bottom."""
    shares = inverse_shares(run.model, run.tok, run.asked(run.prompts), run.targets)
    run.note("inverse greedy", [float(share == 1) for share in shares])
