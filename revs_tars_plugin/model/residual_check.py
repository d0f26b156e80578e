"""Whether a layer adds what FF2 writes to the residual space as it is: without that no step is exact."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from .decoder import Decoder, LayerState

# Any token will do; two of them, since the first one of a text has a state of its own in many models.
_TOKENS = (1, 2)
_TOLERANCE = 0.05


@torch.no_grad()
def check_residual(decoder: Decoder) -> None:
    """Shifts the output of every edited FF2 by a known vector and looks whether its layer's output shifts by the same.

    Some families have a norm (Gemma 2, OLMo 2) or a factor (Granite) between the two. Two passes of two tokens tell.

    Raises:
        InputError: Naming the layer and the module.
    """
    plain: dict[int, Tensor] = {}
    shifts: dict[int, Tensor] = {}
    answers: dict[int, Tensor] = {}

    def keep(layer: int, state: LayerState) -> None:
        plain[layer] = state.residual.clone()

    def compare(layer: int, state: LayerState) -> Tensor:
        answers[layer] = (state.residual - plain[layer])[0, -1].float()
        # The next layer is shown what it saw in the first pass.
        return plain[layer] - state.residual

    decoder.forward_through_layers([_TOKENS], keep)
    generator = torch.Generator().manual_seed(0)
    with ExitStack() as hooks:
        for layer, ff2 in decoder.ff2.items():
            direction = torch.randn(decoder.lens.width, generator=generator).to(plain[layer])
            # As long as the state itself, so that rounding in half precision does not matter.
            shifts[layer] = direction * (plain[layer][0, -1].float().norm() / direction.float().norm()).to(direction)
            hooks.callback(_shift(ff2.module, shifts[layer]).remove)
        decoder.forward_through_layers([_TOKENS], compare)
    for layer, shift in shifts.items():
        expected = shift.float().to(answers[layer].device)
        if not float((answers[layer] - expected).norm()) <= _TOLERANCE * float(expected.norm()):
            raise InputError(
                f'Layer {layer} does not add the output of "{decoder.ff2[layer].name}" to the residual space as it is: '
                f"a norm or a factor stands between, so this {type(decoder.model).__name__} cannot be edited exactly."
            )


def _shift(module: nn.Module, shift: Tensor) -> Any:
    def hook(_module: nn.Module, _args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + shift.to(output)

    # First, so that what the decoder's own hook keeps is the shifted output.
    return module.register_forward_hook(hook, prepend=True)
