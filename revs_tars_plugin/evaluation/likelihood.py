"""How likely a model finds texts, token by token: what exposure and membership scores are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..model.processes import shared
from ..model.shared_prompts import logits_of_pairs
from ..requests.made_up import MadeUp
from ..requests.reading import tokenise_in_context

# Made-up secrets that one is compared with: with it they are 64, so that exposure is 6 bits at most.
CANDIDATES = 63


@dataclass(frozen=True)
class Likelihood:
    """How likely one text is behind its prompt.

    Attributes:
        log_probabilities: Of each token, in nats.
        surprises: The same, less the mean log-probability of all tokens at that place, in standard deviations of it.
    """

    log_probabilities: tuple[float, ...]
    surprises: tuple[float, ...]

    @property
    def total(self) -> float:
        """The log-probability of the whole text, in nats."""
        return sum(self.log_probabilities)


@dataclass(frozen=True)
class Comparison:
    """A secret beside made-up ones of the same form, behind the same prompt."""

    secret: Likelihood
    others: tuple[Likelihood, ...]


@torch.no_grad()
def likelihoods(model: nn.Module, tok: Any, prompts: Sequence[str], texts: Sequence[str]) -> list[Likelihood]:
    """Returns how likely each text is behind its prompt.

    Args:
        model: A causal language model.
        tok: Its tokenizer.
        prompts: One prompt a text.
        texts: What comes behind them.
    """
    pairs = [tokenise_in_context(tok, prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
    measured: dict[int, Likelihood] = {}
    for batch, all_logits in logits_of_pairs(model, pairs):
        logits = torch.cat(all_logits)
        ids = torch.tensor([token for index in batch for token in pairs[index][1]], device=logits.device)
        log_probabilities = logits.log_softmax(dim=-1)
        own = log_probabilities.gather(1, ids[:, None])[:, 0]
        # A head may give some tokens no probability at all.
        weighted = torch.where(log_probabilities.isfinite(), log_probabilities, 0.0)
        probabilities = log_probabilities.exp()
        means = (probabilities * weighted).sum(dim=-1)
        deviations = ((probabilities * weighted.square()).sum(dim=-1) - means.square()).clamp_min(1e-12).sqrt()
        lengths = [len(pairs[index][1]) for index in batch]
        parts = (torch.split(values.cpu(), lengths) for values in (own, (own - means) / deviations))
        for index, values, surprises in zip(batch, *parts, strict=True):
            measured[index] = Likelihood(tuple(values.tolist()), tuple(surprises.tolist()))
    return [measured[index] for index in range(len(pairs))]


def compared(
    model: nn.Module,
    tok: Any,
    prompts: Sequence[str],
    targets: Sequence[str],
    *,
    candidates: int = CANDIDATES,
    seed: int = 0,
) -> list[Comparison]:
    """Returns for each secret how likely it is beside made-up ones of the same form.

    Args:
        model: A causal language model.
        tok: Its tokenizer.
        prompts: One prompt a secret, which all its candidates stand behind too.
        targets: The secrets.
        candidates: How many made-up ones each is compared with; fewer where its form does not have so many.
        seed: Seed of what is made up.
    """
    made_up = MadeUp(f"candidates {seed}", targets)
    asked = [
        (prompt, [target, *made_up.several_like(target, candidates)])
        for prompt, target in zip(prompts, targets, strict=True)
    ]

    def read(prompt_and_texts: tuple[str, list[str]]) -> Comparison:
        prompt, texts = prompt_and_texts
        secret, *others = likelihoods(model, tok, [prompt] * len(texts), texts)
        return Comparison(secret, tuple(others))

    return shared(read, asked)
