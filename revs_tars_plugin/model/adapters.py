"""Models that carry an adapter of peft: the base model inside, whose weights are edited, with the adapter in place."""

from __future__ import annotations

from torch import nn


def base_model(model: nn.Module) -> nn.Module:
    """Returns the model inside a `PeftModel`, with its adapters in place, or the model itself."""
    inside = getattr(model, "get_base_model", None)
    base = inside() if callable(inside) else model
    assert isinstance(base, nn.Module)
    return base


def adapts_parameter(module: nn.Module) -> bool:
    """Says whether a module is an adapter around one parameter of another, as peft has it for that of all experts."""
    return isinstance(getattr(module, "base_layer", None), nn.Module) and hasattr(module, "parameter_name")


def without_adapter(module: nn.Module) -> nn.Module:
    """Returns the layer of the base model inside one that carries an adapter, or the layer itself."""
    while isinstance(inner := getattr(module, "base_layer", None), nn.Module):
        module = inner
    return module
