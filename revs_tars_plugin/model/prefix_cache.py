"""The prefix cache: contexts that went through the model once, so that their last tokens can go again and again.

An edit is read at the last token of a context. What the tokens in front of it hand to attention is kept here, so a pass
over many contexts costs one token each instead of all of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from .forward import batches_by_length, cache_argument, cache_of, evaluating, maximal, padded, without_head


@dataclass(frozen=True)
class PrefixCache:
    """Contexts with the attention keys and values of all tokens but the last, as the weights were when they were read.

    Attributes:
        last: Each context's last token, shape (n, 1).
        lengths: How many tokens stand in front of it, shape (n,).
        layers: For each layer attention's keys and values, shape (n, heads, longest prefix, width) each.
    """

    last: Tensor
    lengths: Tensor
    layers: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    @torch.no_grad()
    def read(cls, model: nn.Module, contexts: Sequence[Sequence[int]]) -> PrefixCache | None:
        """Runs all tokens but the last through the model.

        Args:
            model: A causal language model.
            contexts: Token ids, of several lengths.

        Returns:
            None where this cannot be done: a context of one token, or a model without the usual cache.
        """
        lengths = [len(context) - 1 for context in contexts]
        if min(lengths) < 1 or "position_ids" not in inspect.signature(model.forward).parameters:
            return None
        layers: list[tuple[Tensor, Tensor]] = []
        # A prefix that another one begins with is read with that one.
        prefixes, places = maximal([tuple(context[:-1]) for context in contexts])
        for batch in batches_by_length(prefixes):
            ids, mask = padded(model, [prefixes[index] for index in batch])
            with evaluating(model), without_head(model):
                cache = cache_of(model(input_ids=ids, attention_mask=mask, use_cache=True))
            kept = _keys_and_values(cache, ids.shape)
            if kept is None:
                return None
            if not layers:
                layers = [
                    tuple(part.new_zeros(len(contexts), part.shape[1], max(lengths), part.shape[3]) for part in pair)  # type: ignore[misc]
                    for pair in kept
                ]
            rows = {prefix: row for row, prefix in enumerate(batch)}
            readers = [index for index, place in enumerate(places) if place in rows]
            sources = torch.tensor([rows[places[index]] for index in readers], device=ids.device)
            for whole, pair in zip(layers, kept, strict=True):
                for target, part in zip(whole, pair, strict=True):
                    # What is behind a shorter prefix is masked when its context is run.
                    target[readers, :, : part.shape[2]] = part[sources.to(part.device)]
        device = model.get_input_embeddings().weight.device  # type: ignore[operator]
        last = torch.tensor([[context[-1]] for context in contexts], device=device)
        return cls(last, torch.tensor(lengths, device=device), tuple(layers))

    @torch.no_grad()
    def run(self, model: nn.Module) -> None:
        """Runs the last tokens through the model's layers; hooks see batches of one position."""
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(self.layers):
            cache.update(keys, values, layer)
        longest = self.layers[0][0].shape[2]
        behind = torch.arange(longest, device=self.lengths.device) < self.lengths[:, None]
        mask = torch.cat([behind, torch.ones_like(self.last, dtype=torch.bool)], dim=1).long()
        with evaluating(model), without_head(model):
            model(
                input_ids=self.last,
                attention_mask=mask,
                position_ids=self.lengths[:, None],
                use_cache=True,
                **cache_argument(model, cache),
            )


def _keys_and_values(cache: object, shape: torch.Size) -> list[tuple[Tensor, Tensor]] | None:
    """Reads a cache of either generation of transformers; None where it is not keys and values of every position."""
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
