"""Offloaded weights: where accelerate keeps what it brings in for each pass, so that an edit is written there.

A layer that a `device_map` put on "cpu" or "disk" has empty weights between passes; a hook fills them from a map of
tensors and empties them again. What is written into that tensor is what the next pass computes with. Weights on disk
are read from the checkpoint, which is not to be changed: the first time that one is asked for, a copy in a temporary
file takes its place in the map.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .adapters import without_adapter


def weight_of(module: nn.Module, name: str = "weight") -> Any:
    """Returns a module's weight, wherever it is: of an offloaded one the tensor that is brought in for each pass.

    Args:
        module: The module.
        name: The parameter's name there.

    Returns:
        The tensor, to be written in place; what the module has of that name where that is none.
    """
    weight = getattr(module, name, None)
    if isinstance(weight, Tensor) and weight.is_meta:
        kept = _kept_elsewhere(without_adapter(module), name)
        return weight if kept is None else kept
    return weight


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Returns all parameters of a module by their names, wherever they are; see `weight_of`."""
    found = {}
    for name, parameter in module.named_parameters():
        path, _, last = name.rpartition(".")
        found[name] = weight_of(module.get_submodule(path), last) if parameter.is_meta else parameter
    return found


def _kept_elsewhere(module: nn.Module, name: str) -> Tensor | None:
    hook: Any = getattr(module, "_hf_hook", None)
    for one in getattr(hook, "hooks", [hook]):
        values: Any = getattr(one, "weights_map", None)
        if not getattr(one, "offload", False) or values is None:
            continue
        while hasattr(values, "prefix"):
            name, values = f"{values.prefix}{name}", values.dataset
        store: MutableMapping[str, Tensor] = getattr(values, "state_dict", values)
        if name not in store:
            store[name] = _in_a_file(values[name])
        return store[name]
    return None


def _in_a_file(value: Tensor) -> Tensor:
    """A copy that lives in a temporary file, which goes when the tensor does."""
    value = value.detach().cpu().contiguous()
    with tempfile.NamedTemporaryFile(prefix="revs-tars-", delete=False) as file:
        file.truncate(max(value.numel() * value.element_size(), 1))
    mapped = torch.from_file(file.name, shared=True, size=value.numel(), dtype=value.dtype).reshape(value.shape)
    mapped.copy_(value)
    with contextlib.suppress(OSError):  # where an open file cannot be removed it is left to the system
        Path(file.name).unlink()
    return mapped
