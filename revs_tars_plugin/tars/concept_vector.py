"""Step 1 of TARS: the approximate concept vector, what a detailed prompt gathers at its end (section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from ..model.decoder import Decoder, LayerState
from ..model.forward import layer_output, next_token_logits, padded


@dataclass(frozen=True)
class ConceptStates:
    """What the concept's prompts make of the model, in one pass over all of them.

    Attributes:
        vector: The approximate concept vector: the residual at the layer and position that the settings name, the mean
            over prompts, shape (d,).
        logits: What the model says at each prompt's end, shape (prompts, vocabulary).
        activations: For each edited layer FF2's inputs at the prompts' last positions, shape (prompts, f).
    """

    vector: Float[Tensor, " d"]
    logits: Float[Tensor, "prompts vocabulary"]
    activations: dict[int, Float[Tensor, "prompts f"]]


def concept_states(decoder: Decoder, prompts: Sequence[Sequence[int]], layer: int, position: int) -> ConceptStates:
    """Runs the concept's prompts through the model.

    Args:
        decoder: The model.
        prompts: Token ids.
        layer: Whose output is the concept vector; negative counts from the model's last.
        position: The token of each prompt at which it is read; negative counts from its end.

    Raises:
        InputError: When the model has no such layer, or a prompt no such position.
    """
    read_layer = layer + decoder.n_layers if layer < 0 else layer
    if not 0 <= read_layer < decoder.n_layers:
        raise InputError(f"concept_layer is {layer}, but the model has layers 0 to {decoder.n_layers - 1}.")
    places = [position + len(prompt) if position < 0 else position for prompt in prompts]
    for prompt, place in zip(prompts, places, strict=True):
        if not 0 <= place < len(prompt):
            raise InputError(f"concept_position is {position}, but a concept prompt has only {len(prompt)} tokens.")
    activations: dict[int, Tensor] = {}
    residuals: list[Tensor] = []

    def keep_activations(visited: int, state: LayerState) -> None:
        activations[visited] = state.at_last(state.ff2_input).float()

    def keep_residual(_module: object, _args: object, output: Any) -> None:
        hidden = layer_output(output)
        residuals.append(hidden[torch.arange(len(places)), places].float())

    # The layer that is read need not be one that is edited.
    handle = decoder.layer_modules[read_layer].register_forward_hook(keep_residual)
    try:
        with decoder.visiting(keep_activations, padded(decoder.model, prompts)[1].bool()):
            logits = next_token_logits(decoder.model, prompts)
    finally:
        handle.remove()
    return ConceptStates(residuals[0].mean(dim=0), logits, activations)
