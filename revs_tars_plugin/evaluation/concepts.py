"""What a model knows of a concept, in both directions: from a description to its name, and from its name to facts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..requests import tokenise_in_context
from .integrity import next_token_log_probabilities


def name_probabilities(model: nn.Module, tok: Any, prompts: Sequence[str], name: str) -> list[float]:
    """Returns the probability that the name begins after each prompt (TARS, section 4)."""
    if not prompts:
        return []
    tokens = torch.tensor([[tokenise_in_context(tok, prompt, name)[1][0]] for prompt in prompts])
    found: list[float] = next_token_log_probabilities(model, tok, prompts).gather(1, tokens)[:, 0].exp().tolist()
    return found


def fact_log_likelihoods(model: nn.Module, tok: Any, facts: Sequence[tuple[str, str]]) -> list[float]:
    """Returns for each beginning of a fact the log-likelihood, in nats, of the first token of how it goes on."""
    if not facts:
        return []
    tokens = torch.tensor([[tokenise_in_context(tok, *fact)[1][0]] for fact in facts])
    found: list[float] = (
        next_token_log_probabilities(model, tok, [fact[0] for fact in facts]).gather(1, tokens)[:, 0].tolist()
    )
    return found
