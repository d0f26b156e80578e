"""How the target's log-probability depends on each neuron's activation: the paper's gradient ablation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..decoder import Decoder
from ..forward import selected_logits


def activation_gradients(decoder: Decoder, context: Sequence[int], token: int) -> dict[int, Float[Tensor, " f"]]:
    """Returns d log p(token | context) / d activation at the last position, for each edited layer.

    No gradient is left on any parameter.
    """
    kept: dict[int, Tensor] = {}

    def watch(layer: int) -> Callable[..., Any]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            inputs = args[0] if args[0].requires_grad else args[0].detach().requires_grad_()
            kept[layer] = inputs
            return (inputs, *args[1:])

        return hook

    with ExitStack() as hooks:
        for layer, ff2 in decoder.ff2.items():
            hooks.callback(ff2.module.register_forward_pre_hook(watch(layer)).remove)
        logits = selected_logits(decoder.model, [context], [(0, len(context) - 1)], gradients=True)
    gradients = torch.autograd.grad(logits[0].log_softmax(dim=-1)[token], list(kept.values()))
    return {layer: gradient[0, -1].float() for layer, gradient in zip(kept, gradients, strict=True)}
