"""What feed-forward blocks of low layers read and pass on; a pass ends behind the last layer that is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..model.decoder import Decoder
from ..model.forward import evaluating, layer_output, padded, without_head
from ..model.matrices import FeedForwardMatrix
from ..moments.second_moments import text_batches


class _EnoughError(Exception):
    """Ends a pass."""


@dataclass(frozen=True)
class LayerReading:
    """One layer at a number of positions.

    Attributes:
        read: What the matrices get that read the residual space, shape (n, d), float32.
        passed_on: What FF2 gets, shape (n, f), float32.
        output: The layer's output, shape (n, d), float32.
    """

    read: Float[Tensor, "n d"]
    passed_on: Float[Tensor, "n f"]
    output: Float[Tensor, "n d"]


@torch.no_grad()
def read_layers(
    decoder: Decoder,
    firsts: Mapping[int, FeedForwardMatrix],
    sequences: Sequence[Sequence[int]],
    *,
    everywhere: bool = False,
) -> dict[int, LayerReading]:
    """Runs token sequences up to the last of some layers.

    Args:
        decoder: The model.
        firsts: For each layer, all of which may be edited, a matrix of it that reads the residual space.
        sequences: Token ids.
        everywhere: All positions, sequence by sequence; else the last one of each.
    """
    parts: dict[int, list[LayerReading]] = {layer: [] for layer in firsts}
    got: dict[tuple[int, str], Tensor] = {}

    def keep(layer: int, name: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
            got[layer, name] = args[0]

        return hook

    def keep_output(layer: int) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            got[layer, "output"] = layer_output(output)
            if layer == max(firsts):
                raise _EnoughError

        return hook

    with ExitStack() as stack:
        for layer, first in firsts.items():
            for name, module in (("read", first.module), ("passed on", decoder.ff2[layer].module)):
                stack.callback(module.register_forward_pre_hook(keep(layer, name)).remove)
            stack.callback(decoder.layer_modules[layer].register_forward_hook(keep_output(layer)).remove)
        stack.enter_context(evaluating(decoder.model))
        stack.enter_context(without_head(decoder.model))
        for batch in text_batches(sequences):
            ids, mask = padded(decoder.model, batch)
            with suppress(_EnoughError):
                decoder.model(input_ids=ids, attention_mask=mask, use_cache=False)
            wanted = mask.bool() if everywhere else _last(mask)
            for layer, own in parts.items():
                values = (got[layer, name] for name in ("read", "passed on", "output"))
                own.append(LayerReading(*(each[wanted.to(each.device)].float() for each in values)))
    return {layer: _joined(own) for layer, own in parts.items()}


def _joined(parts: Sequence[LayerReading]) -> LayerReading:
    names = [item.name for item in fields(LayerReading)]
    return LayerReading(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def _last(mask: Tensor) -> Tensor:
    last = torch.zeros_like(mask, dtype=torch.bool)
    return last.scatter(1, mask.sum(dim=1, keepdim=True) - 1, True)
