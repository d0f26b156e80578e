"""Many continuations behind few prompts: each prompt goes through the model once."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import DynamicCache

from .forward import (
    batches_by_length,
    cache_argument,
    cache_of,
    continuation_logits,
    evaluating,
    padded,
    picked_by_head,
    without_head,
)

# Positions behind prompts that go through a model at once: each has a row of the vocabulary.
_POSITIONS = 512
Pair = tuple[tuple[int, ...], tuple[int, ...]]


@torch.no_grad()
def logits_of_pairs(
    model: nn.Module, pairs: Sequence[Pair]
) -> Iterator[tuple[list[int], list[Float[Tensor, "tokens vocabulary"]]]]:
    """Yields, batch by batch, places in the list and for each the logits that speak of every token behind its prompt.

    Args:
        model: A causal language model.
        pairs: Token ids of a prompt, none empty, and of what comes behind it.
    """
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for index, (prompt, _) in enumerate(pairs):
        by_prompt.setdefault(prompt, []).append(index)
    alone = []
    for prompt, indices in by_prompt.items():
        cache = _read(model, prompt) if len(indices) > 1 and len(prompt) > 1 else None
        if cache is None:
            alone += indices
            continue
        rests = [pairs[index][1] for index in indices]
        for batch in batches_by_length(rests, _POSITIONS):
            logits = _behind(model, prompt, [rests[place] for place in batch], cache)
            yield [indices[place] for place in batch], logits
    for batch in batches_by_length([prompt + rest for prompt, rest in (pairs[index] for index in alone)]):
        chosen = [alone[place] for place in batch]
        yield chosen, continuation_logits(model, [pairs[index] for index in chosen])


def _read(model: nn.Module, prompt: Sequence[int]) -> list[tuple[Tensor, Tensor]] | None:
    """All tokens of a prompt but the last; None where a model does not let its keys and values be kept."""
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return None
    ids, mask = padded(model, [prompt[:-1]])
    with evaluating(model), without_head(model):
        cache = cache_of(model(input_ids=ids, attention_mask=mask, use_cache=True))
    return _keys_and_values(cache, ids.shape)


def _behind(
    model: nn.Module,
    prompt: Sequence[int],
    rests: Sequence[Sequence[int]],
    layers: Sequence[tuple[Tensor, Tensor]],
) -> list[Tensor]:
    """The logits that speak of every token of texts behind one prompt."""
    ids, mask = padded(model, [[prompt[-1], *rest[:-1]] for rest in rests])
    cache = DynamicCache()
    for layer, pair in enumerate(layers):
        keys, values = (part.expand(len(rests), -1, -1, -1) for part in pair)
        cache.update(keys, values, layer)
    mask = torch.cat([mask.new_ones(len(rests), len(prompt) - 1), mask], dim=1)
    picks = [(row, place) for row, rest in enumerate(rests) for place in range(len(rest))]
    with evaluating(model), picked_by_head(model, picks):
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=torch.arange(len(prompt) - 1, mask.shape[1], device=ids.device)[None],
            use_cache=True,
            **cache_argument(model, cache),
        )
    return list(torch.split(output.logits[0].float(), [len(rest) for rest in rests]))


def _keys_and_values(cache: object, shape: torch.Size) -> list[tuple[Tensor, Tensor]] | None:
    """Returns keys and values of either generation of transformers; None where not every position has them."""
    if not isinstance(cache, DynamicCache):
        return None
    if hasattr(cache, "layers"):
        pairs = [(getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in cache.layers]
    else:
        pairs = list(zip(cache.key_cache, cache.value_cache, strict=True))
    kept = []
    for keys, values in pairs:
        if not isinstance(keys, Tensor) or not isinstance(values, Tensor):
            return None
        if any(part.dim() != 4 or part.shape[2] != shape[1] for part in (keys, values)):
            return None
        kept.append((keys, values))
    return kept
