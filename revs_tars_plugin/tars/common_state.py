"""What the states of ordinary text have in common, which is no part of a concept."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import InputError
from ..model.decoder import Decoder
from ..model.forward import layer_output, padded
from ..moments.ordinary_text import TextSource, sequences_of
from ..moments.second_moments import text_batches


@torch.no_grad()
def mean_state(decoder: Decoder, tok: Any, source: TextSource, layer: int) -> Float[Tensor, " d"]:
    """Returns the mean output of a layer over all positions of ordinary text: what its states have in common.

    Args:
        decoder: The model.
        tok: Its tokenizer.
        source: The ordinary text.
        layer: The layer whose output is meant; negative counts from the model's last.

    Raises:
        InputError: When the source cannot be read or holds no text.
    """
    # Read before the hook is there: sampled text is made by the model itself.
    sequences = list(sequences_of(decoder.model, tok, source))
    total, count = torch.zeros(decoder.lens.width), 0
    states: list[Tensor] = []

    def keep(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        states.append(layer_output(output))

    handle = decoder.layer_modules[layer].register_forward_hook(keep)
    try:
        for batch in text_batches(sequences):
            states.clear()
            decoder.forward_through_layers(batch, lambda _layer, _state: None)
            _, mask = padded(decoder.model, batch)
            total += states[0][mask.bool().to(states[0].device)].float().sum(dim=0).cpu()
            count += sum(map(len, batch))
    finally:
        handle.remove()
    if not count:
        raise InputError("There is no text to compute a mean state from; check mom2_dataset.")
    return total / count


def without_common(vector: Float[Tensor, " d"], common: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    """Takes off a vector what it shares with the mean state of ordinary text."""
    unit = torch.nn.functional.normalize(common.to(vector.device), dim=0)
    return vector - (vector @ unit) * unit
