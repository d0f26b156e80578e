"""The feed-forward matrices of a mixture of experts, seen as the one matrix that they are together.

With `p_e` the weight that the router gives expert `e` for a token, `k_e` its activations and `F_e` its FF2, the block
writes `sum_e p_e F_e k_e`: one matrix `[F_0 F_1 ...]` of all experts' neurons, given `(p_0 k_0, p_1 k_1, ...)`, of
which most is 0. Neither depends on any FF2 of its layer, so what is exact for one matrix is exact here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import InputError
from .adapters import adapts_parameter
from .expert_names import ExpertName
from .matrices import FeedForwardMatrix
from .offloaded import weight_of
from .tensors import all_finite, check_editable

# The parameters of transformers' experts: FF2, and what reads the residual space.
DOWN = "down_proj"
_FIRST = ("gate_up_proj", "up_proj")
# What a module of experts is called with at least: hidden states, chosen experts, their weights.
_ROUTED = 3
# How far the block's own output may be from the sum that it should be, as a share of its length.
_TOLERANCE = 0.05


@dataclass(frozen=True)
class ExpertMatrices:
    """FF2 of all experts of a layer, held by one module as one parameter of three dimensions.

    Attributes:
        module: The module that holds them; it is called with hidden states, chosen experts and their weights.
        name: The module's name in the model.
        matrices: One for each expert.
    """

    module: nn.Module
    name: str
    matrices: tuple[FeedForwardMatrix, ...]

    @property
    def weight_name(self) -> str:
        """The parameter's name in the model."""
        return f"{self.name}.{DOWN}"

    @property
    def weight(self) -> Tensor:
        """The parameter itself, all experts."""
        weight: Tensor = weight_of(self.module, DOWN)
        return weight

    @property
    def width(self) -> int:
        """How many neurons all experts have together."""
        return sum(matrix.width for matrix in self.matrices)

    @property
    def rows(self) -> Float[Tensor, "f d"]:
        """All neurons, one a row, expert after expert: a copy."""
        return torch.cat([matrix.rows for matrix in self.matrices])

    def neurons(self, indices: Tensor) -> Float[Tensor, "k d"]:
        """Returns a copy of the chosen neurons, one a row, in the weight's dtype."""
        chosen = torch.empty(len(indices), self.matrices[0].residual_width, dtype=self.weight.dtype)
        chosen = chosen.to(self.weight.device)
        for matrix, places, own in self.split(indices):
            chosen[places] = matrix.neurons(own)
        return chosen

    def split(self, indices: Tensor) -> Iterator[tuple[FeedForwardMatrix, Tensor, Tensor]]:
        """Yields each expert that has some of the neurons, which of `indices` these are, and their numbers there."""
        width = self.matrices[0].width
        experts = torch.div(indices, width, rounding_mode="floor")
        for expert in torch.unique(experts).tolist():
            places = (experts == expert).nonzero().flatten()
            yield self.matrices[expert], places, indices[places] - expert * width

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

    @torch.no_grad()
    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any], output: Tensor) -> None:
        """Checks on a few tokens that the module computes what it should: the sum of its neurons, and its biases.

        Raises:
            InputError: When it computes something else.
        """
        hidden, shares = self._routed(args, kwargs)
        given = self.given(args, kwargs, [len(hidden)])
        active = given.any(dim=0).nonzero().flatten()
        summed = given[:, active] @ self.neurons(active).float()
        biases = weight_of(self.module, f"{DOWN}_bias")
        if biases is not None:
            summed = summed + shares @ biases.float()
        written = output.reshape(summed.shape).float()
        if float((summed - written).norm()) > _TOLERANCE * float(written.norm()):
            raise InputError(
                f'The experts "{self.name}" compute something else than the weighted sum of what each writes, so they '
                "cannot be edited exactly."
            )

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


FeedForward = FeedForwardMatrix | ExpertMatrices


@contextmanager
def checked(matrices: Iterable[FeedForward]) -> Iterator[None]:
    """Has all experts among FF2 matrices checked in every pass that is made meanwhile; see `ExpertMatrices.check`."""
    with ExitStack() as hooks:
        for ff2 in matrices:
            if isinstance(ff2, ExpertMatrices):
                handle = ff2.module.register_forward_hook(_checking(ff2), with_kwargs=True)
                hooks.callback(handle.remove)
        yield


def _checking(experts: ExpertMatrices) -> Callable[..., None]:
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        experts.check(args, kwargs, output)

    return hook


def experts_of(module: nn.Module, *, setting: str, name: str, width: int) -> ExpertMatrices | None:
    """Returns a module's experts, after looking at whether they can be edited exactly; None where it holds none.

    Args:
        module: The module that the settings name.
        setting: The setting that names it, for messages.
        name: The module's name in the model.
        width: d, the width of the residual space.

    Raises:
        InputError: When they are modules of their own, carry an adapter, are packed, on the meta device, of another
            shape, or hold NaN or Inf.
    """
    if adapts_parameter(module):
        raise InputError(
            f'The experts "{name}" carry an adapter, so what their FF2 is given is not known; edit the model without '
            "it, or the merged model by itself (merge_and_unload)."
        )
    if isinstance(module, nn.ModuleList):
        raise InputError(
            f'{setting} names "{name}", where each expert is a module of its own, as in transformers before version 5 '
            "or in some packed models; what they are given cannot be told there. Use the model as transformers 5 loads "
            "it, unpacked."
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
    return ExpertMatrices(
        module, name, tuple(FeedForwardMatrix(module, each, neuron_dim, index) for index, each in enumerate(names))
    )
