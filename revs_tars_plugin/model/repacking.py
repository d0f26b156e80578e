"""Packing a model's weights again after they were changed: in the same bits, by the library that did it first."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from .adapters import base_model
from .packed import SpreadLinear, computing_dtype, is_packed, spread_out


def check_repackable(model: Any) -> None:
    """Refuses models that cannot be packed again.

    Raises:
        InputError: When the model was not packed by transformers or only from a checkpoint that was packed before,
            carries an adapter or an edit, or has weights that are offloaded.
    """
    settings = getattr(getattr(model, "config", None), "quantization_config", None)
    if settings is None:
        raise InputError(
            "The model does not say how it was packed (its config has no quantization_config), so it cannot be packed "
            "again; load it by transformers' from_pretrained."
        )
    if getattr(getattr(model, "hf_quantizer", None), "requires_calibration", False):
        raise InputError(
            "The model's bits come of a calibration that its weights alone do not tell, so it cannot be packed again; "
            "deliver the edit as an adapter."
        )
    adapted = base_model(model) is not model or hasattr(model, "peft_config")
    if adapted or any(isinstance(module, SpreadLinear) for module in model.modules()):
        raise InputError("The model carries an adapter or an edit already; load it without, to pack it again.")
    if any(parameter.is_meta for parameter in model.parameters()):
        raise InputError("Weights of the model are offloaded; load it without that, to pack it again.")


@torch.no_grad()
def save_unpacked(model: Any, folder: str, change: Callable[[nn.Module], object] = lambda _plain: None) -> None:
    """Saves a model of the same kind whose weights are plain tensors: what each packed module multiplies with.

    Args:
        model: A causal language model of transformers with packed modules; stays as it is.
        folder: Where to.
        change: Changes the weights of the unpacked model, which cannot be run, before they are saved.

    Raises:
        InputError: As `check_repackable`, or when a packed module is no linear map.
    """
    check_repackable(model)
    config: Any = copy.deepcopy(model.config)
    del config.quantization_config
    dtype = computing_dtype(model)
    with torch.device("meta"):  # nothing is drawn, and nothing held twice
        plain = type(model)(config)
    packed = {name: module for name, module in model.named_modules() if is_packed(module)}
    there = dict(model.named_parameters())
    for name, _ in list(plain.named_parameters()):
        path, _, last = name.rpartition(".")
        if path in packed and last == "weight":
            value: Any = spread_out(packed[path], path, dtype).to(dtype)
        else:
            value = getattr(packed[path], last) if path in packed else there.get(name)
        if not isinstance(value, Tensor):
            raise InputError(f'The packed model has no weight "{name}", so it cannot be packed again.')
        setattr(plain.get_submodule(path), last, nn.Parameter(value.detach(), requires_grad=False))
    plain.tie_weights()
    plain.generation_config = copy.deepcopy(model.generation_config)
    change(plain)
    plain.save_pretrained(folder)


def packed_again(model: Any, folder: Path, change: Callable[[nn.Module], object] = lambda _plain: None) -> Any:
    """Writes a changed model in the same bits as a checkpoint, and returns it as it is loaded from there.

    It is saved before it has run: bitsandbytes lays weights out anew for a CPU in the first pass, and what is saved
    after that is another model. On disk the unpacked model's size is taken for a while, in memory that of both.

    Args:
        model: A causal language model of transformers with packed modules; stays as it is.
        folder: Where to; empty, or not there.
        change: Changes the weights of the unpacked model, which cannot be run.

    Raises:
        InputError: As `save_unpacked`, or when its library cannot pack it again.
    """
    where = {
        "dtype": computing_dtype(model),
        "device_map": getattr(model, "hf_device_map", None) or {"": str(next(model.parameters()).device)},
    }
    with tempfile.TemporaryDirectory(prefix="revs-tars-") as unpacked:
        save_unpacked(model, unpacked, change)
        settings = copy.deepcopy(model.config.quantization_config)
        try:
            type(model).from_pretrained(unpacked, quantization_config=settings, **where).save_pretrained(folder)
        # Each library has errors of its own for what it cannot do.
        except (OSError, ValueError, RuntimeError, ImportError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:150]
            raise InputError(f"The model cannot be packed again by its library ({reason}).") from error
    return type(model).from_pretrained(folder, **where).eval()
