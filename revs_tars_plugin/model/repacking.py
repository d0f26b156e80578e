"""Packing a model's weights again after they were changed: in the same bits, by the library that did it first."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from .packed import computing_dtype, is_packed, spread_out


@torch.no_grad()
def unpacked_copy(model: Any) -> Any:
    """Returns a model of the same kind whose weights are plain tensors: what each packed module multiplies with.

    Args:
        model: A causal language model of transformers with packed modules; stays as it is.

    Raises:
        InputError: When a packed module is no linear map, or the model was not packed by transformers.
    """
    config: Any = copy.deepcopy(getattr(model, "config", None))
    if getattr(config, "quantization_config", None) is None:
        raise InputError(
            "The model does not say how it was packed (its config has no quantization_config), so it cannot be packed "
            "again; load it by transformers' from_pretrained."
        )
    del config.quantization_config
    dtype = computing_dtype(model)
    plain = type(model)(config).to(dtype)
    packed = {name: module for name, module in model.named_modules() if is_packed(module)}
    weights: dict[str, Tensor] = {}
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if name.rpartition(".")[0] not in packed:
            weights[name] = value
    for name, module in packed.items():
        weights[f"{name}.weight"] = spread_out(module, name, dtype)
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor):
            weights[f"{name}.bias"] = bias
    for name, value in [*plain.named_parameters(), *plain.named_buffers()]:
        if name in weights:
            value.copy_(weights[name])
    return plain.eval()


def packed_again(model: Any, change: Callable[[nn.Module], None]) -> Any:
    """Returns a changed model in the same bits as the one that is given; nothing of that one is touched.

    Weights that are not changed are packed from what they were unpacked to. On disk it takes the unpacked model's size
    for a while, in memory that of both.

    Args:
        model: A causal language model of transformers with packed modules.
        change: Changes the unpacked model in place.

    Raises:
        InputError: As `unpacked_copy`.
    """
    plain = unpacked_copy(model)
    change(plain)
    place = next(model.parameters()).device
    with tempfile.TemporaryDirectory(prefix="revs-tars-") as folder:
        plain.save_pretrained(folder)
        del plain
        packed = type(model).from_pretrained(
            folder,
            quantization_config=model.config.quantization_config,
            dtype=computing_dtype(model),
            device_map={"": str(place)},
        )
    return packed.eval()
