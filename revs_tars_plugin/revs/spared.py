"""Spared contexts: where the model says a token that it must go on saying, though the same token is demoted elsewhere.

All secrets of a call that have a digit in common share one direction, "this digit against the others", and so one key
(`support_vectors`). Behind one wording that key would answer to everybody's digit, those to retain as well: as a mean
over all of their texts (`retain_weight`) the few places that matter weigh next to nothing. So these places are
constraints of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..model.decoder import Decoder, LayerState
from ..model.forward import batches_by_length, evaluating, padded

# Positions of a pass: each has a row of the vocabulary.
_POSITIONS = 1024
# Places of one token that are kept: a comma of a long text to retain has thousands, much alike.
_MOST_A_TOKEN = 256


@dataclass(frozen=True)
class SparedContexts:
    """What FF2 is given where a token is said that has to stay, in the unedited model.

    Attributes:
        tokens: The token that comes next, shape (n,).
        keys: For each layer the inputs of FF2 in front of it, shape (n, f).
    """

    tokens: Int[Tensor, " n"]
    keys: Mapping[int, Float[Tensor, "n f"]]

    @classmethod
    @torch.no_grad()
    def of(cls, decoder: Decoder, texts: Sequence[Sequence[int]], wanted: set[int]) -> SparedContexts:
        """Reads texts and keeps the places where greedy decoding says the next token, and it is a wanted one.

        Args:
            decoder: The model.
            texts: Token ids.
            wanted: The tokens that are demoted elsewhere; others are in no danger.
        """
        tokens: list[Tensor] = []
        counts: dict[int, int] = {}
        keys: dict[int, list[Tensor]] = {layer: [] for layer in decoder.layers}
        chosen = torch.tensor(sorted(wanted), dtype=torch.long)
        for batch in batches_by_length(texts, _POSITIONS):
            ids, mask = padded(decoder.model, [texts[index] for index in batch])
            inputs: dict[int, Tensor] = {}

            def keep(layer: int, state: LayerState, inputs: dict[int, Tensor] = inputs) -> None:
                inputs[layer] = state.ff2_input

            with decoder.visiting(keep, mask.bool()), evaluating(decoder.model):
                said = decoder.model(input_ids=ids, attention_mask=mask, use_cache=False).logits.argmax(dim=-1)
            following = ids[:, 1:]
            spared = (said[:, :-1] == following) & mask[:, 1:].bool() & torch.isin(following, chosen.to(ids.device))
            for token in sorted(set(following[spared].tolist())):
                places = (spared & (following == token)).nonzero()
                room = _MOST_A_TOKEN - counts.get(token, 0)
                spared[tuple(places[max(room, 0) :].T)] = False
                counts[token] = counts.get(token, 0) + min(len(places), max(room, 0))
            tokens.append(following[spared].cpu())
            for layer, values in inputs.items():
                keys[layer].append(values[:, :-1][spared.to(values.device)].float().cpu())
        width = decoder.ff_width
        return cls(
            torch.cat(tokens) if tokens else torch.zeros(0, dtype=torch.long),
            {layer: torch.cat(rows) if rows else torch.zeros(0, width) for layer, rows in keys.items()},
        )

    def before(self, layer: int, token: int) -> Float[Tensor, "n f"]:
        """Returns what FF2 of a layer is given in front of one token."""
        return self.keys[layer][self.tokens == token]
