"""How much of a secret a model still holds, read token by token and by sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..batching import by_length
from ..forward import continuation_logits, sample
from ..requests import tokenise_in_context


@dataclass(frozen=True)
class Recall:
    """What greedy decoding holds of one secret.

    Attributes:
        exact_memorization: Share of its tokens that are the most likely one after the prompt and the tokens before it
            (Tirumala et al., arXiv 2205.10770).
        extraction_strength: 1 minus the shortest share of its beginning that an attacker has to know for the model to
            go on with the rest by itself (Carlini et al., arXiv 2012.07805, as a share): 1 where the prompt alone is
            enough, 0 where the model gives not even the last token.
    """

    exact_memorization: float
    extraction_strength: float


@torch.no_grad()
def recall(
    model: nn.Module, tok: Any, prompts: Sequence[str], targets: Sequence[str], batch_size: int = 32
) -> list[Recall]:
    """Returns both measures for every secret, all of its tokens in one pass.

    Args:
        model: A causal language model.
        tok: Its tokenizer.
        prompts: One prompt a secret.
        targets: The secrets.
        batch_size: The most sequences of a pass.
    """
    pairs = [tokenise_in_context(tok, prompt, target) for prompt, target in zip(prompts, targets, strict=True)]
    found: dict[int, Recall] = {}
    for batch in by_length([prompt + target for prompt, target in pairs], most=batch_size):
        for index, logits in zip(batch, continuation_logits(model, [pairs[index] for index in batch]), strict=True):
            target = pairs[index][1]
            right = [guess == token for guess, token in zip(logits.argmax(dim=-1).tolist(), target, strict=True)]
            wrong = [position for position, good in enumerate(right) if not good]
            needed = wrong[-1] + 1 if wrong else 0
            found[index] = Recall(sum(right) / len(target), 1 - needed / len(target))
    return [found[index] for index in range(len(pairs))]


def sampled_extractions(
    model: nn.Module,
    tok: Any,
    prompts: Sequence[str],
    targets: Sequence[str],
    *,
    n_samples: int = 20,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 64,
) -> list[int]:
    """Returns for each secret how many of `n_samples` sampled continuations of its prompt contain it.

    Continuations are twice as long as the secret, in tokens. The caller's random numbers are left as they are.

    Args:
        model: A causal language model.
        tok: Its tokenizer.
        prompts: One prompt a secret.
        targets: The secrets; white space around them does not count.
        n_samples: Continuations a prompt.
        temperature: Of the softmax; above 0.
        seed: The same seed gives the same samples.
        batch_size: Continuations made together.
    """
    generator = torch.Generator().manual_seed(seed)
    device = model.get_input_embeddings().weight.device  # type: ignore[operator]
    found = []
    for prompt, target in zip(prompts, targets, strict=True):
        prompt_ids, target_ids = tokenise_in_context(tok, prompt, target)
        count = 0
        for first in range(0, n_samples, batch_size):
            ids = torch.tensor([prompt_ids] * min(batch_size, n_samples - first), device=device)
            texts = tok.batch_decode(
                sample(model, ids, 2 * len(target_ids), generator, temperature), skip_special_tokens=True
            )
            count += sum(target.strip() in text for text in texts)
        found.append(count)
    return found
