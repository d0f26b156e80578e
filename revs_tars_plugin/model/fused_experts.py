"""Experts of transformers 5: all of a layer in one module, FF2 of all of them one parameter of three dimensions."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import InputError
from .adapters import adapts_parameter
from .expert_names import ExpertName
from .experts import ExpertMatrices
from .matrices import FeedForwardMatrix
from .offloaded import weight_of
from .tensors import all_finite, check_editable

# The parameters of transformers' experts: FF2, and what reads the residual space.
DOWN = "down_proj"
_FIRST = ("gate_up_proj", "up_proj")
# What stands between the matrices: a gate, or what transformers before it made one of.
_GATES = ("_apply_gate", "act_fn")
# What a module of experts is called with at least: hidden states, chosen experts, their weights.
_ROUTED = 3


@dataclass(frozen=True)
class FusedExperts(ExpertMatrices):
    """FF2 of all experts of a layer, held by one module; it is called with hidden states, chosen experts, weights."""

    @torch.no_grad()
    def given(self, args: Sequence[Any], kwargs: Mapping[str, Any], shape: Sequence[int]) -> Tensor:
        """Returns every expert's activations times its weight in a call of the module, float32, shape (*shape, f).

        They are computed anew from the module's own first matrices, with its own gate.
        """
        hidden, shares = self._routed(args, kwargs)
        width = self.matrices[0].width
        activations = torch.zeros(len(hidden), len(self.matrices), width, device=hidden.device)
        for expert in shares.any(dim=0).nonzero().flatten().tolist():
            tokens = shares[:, expert].nonzero().flatten()
            activations[tokens, expert] = self._activations(expert, hidden[tokens]) * shares[tokens, expert, None]
        return activations.reshape(*shape, len(self.matrices) * width)

    def beside(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Float[Tensor, "n d"] | float:
        """Returns the biases of the chosen experts, weighted."""
        biases = weight_of(self.module, f"{DOWN}_bias")
        return 0.0 if biases is None else self._routed(args, kwargs)[1] @ biases.float()

    def _routed(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Tensor, Float[Tensor, "n experts"]]:
        """The hidden states of a call, one a row, and the weight of each expert for each, 0 where it is not chosen."""
        given = inspect.signature(self.module.forward).bind(*args, **kwargs).arguments
        hidden, chosen, weights = (values.reshape(-1, values.shape[-1]) for values in list(given.values())[:3])
        # Some routers send what they drop to an expert that is not there.
        shares = torch.zeros(len(hidden), max(len(self.matrices), int(chosen.max()) + 1), device=hidden.device)
        shares.scatter_add_(1, chosen, weights.float())
        return hidden, shares[:, : len(self.matrices)]

    def _activations(self, expert: int, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n f"]:
        """What one expert's FF2 is given for some tokens, float32."""
        module: Any = self.module
        name = next(name for name in _FIRST if hasattr(module, name))
        first = weight_of(module, name)[expert].to(hidden.device)
        raw = hidden @ (first if self.matrices[expert].transposed else first.T)
        bias = weight_of(module, f"{name}_bias")
        raw = raw if bias is None else raw + bias[expert].to(hidden.device)
        gate = getattr(module, "_apply_gate", None)
        activations: Tensor
        if name == "up_proj":
            activations = module.act_fn(raw)
        elif gate is not None:
            activations = gate(raw)
        else:  # transformers before it gave every kind of experts one
            opened, up = raw.chunk(2, dim=-1)
            activations = module.act_fn(opened) * up
        return activations.float()


def fused_experts_of(module: nn.Module, *, setting: str, name: str, width: int) -> FusedExperts | None:
    """Returns a module's experts, after looking at whether they can be edited exactly; None where it holds none.

    Args:
        module: The module that the settings name.
        setting: The setting that names it, for messages.
        name: The module's name in the model.
        width: d, the width of the residual space.

    Raises:
        InputError: When they carry an adapter, are packed, on the meta device, of another shape, or hold NaN or Inf; or
            do not say what stands between their matrices, or which of them are chosen.
    """
    if adapts_parameter(module):
        raise InputError(
            f'The experts "{name}" carry an adapter, so what their FF2 is given is not known; edit the model without '
            "it, or the merged model by itself (merge_and_unload)."
        )
    weight = weight_of(module, DOWN)
    if weight is not None and not isinstance(weight, (Tensor, nn.Module)):
        raise InputError(
            f'{setting} names "{name}", whose {DOWN} is packed ({type(weight).__name__}); load the model unpacked, of '
            "gpt-oss with transformers' Mxfp4Config(dequantize=True)."
        )
    if not isinstance(weight, Tensor) or weight.dim() != 3 or not any(hasattr(module, first) for first in _FIRST):
        return None
    if len(inspect.signature(module.forward).parameters) < _ROUTED:
        raise InputError(
            f'{setting} names "{name}", experts that are not told which of them are chosen, so they cannot be edited '
            "exactly."
        )
    if not any(hasattr(module, gate) for gate in _GATES):
        raise InputError(
            f'{setting} names "{name}", experts that do not say what stands between their matrices; use the model as '
            "transformers 5 loads it."
        )
    check_editable(weight, f"{name}.{DOWN}")
    transposed = getattr(module, "is_transposed", None)
    if transposed is None:
        transposed = weight.shape[2] == width
    neuron_dim = 0 if transposed else 1
    if weight.shape[2 - neuron_dim] != width:
        raise InputError(
            f'{setting} names "{name}", whose {DOWN} has the shape {tuple(weight.shape)}; each expert must write into '
            f"the residual space of width {width}."
        )
    if not all(all_finite(part) for part in weight):
        raise InputError(f'The weight "{name}.{DOWN}" holds NaN or Inf; load the model again before editing it.')
    names = [str(ExpertName(f"{name}.{DOWN}", expert, len(weight))) for expert in range(len(weight))]
    return FusedExperts(
        module, name, tuple(FeedForwardMatrix(module, each, neuron_dim, index) for index, each in enumerate(names))
    )
