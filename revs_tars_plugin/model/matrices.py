"""One feed-forward matrix of a layer, seen in one orientation whatever the class of the module that holds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..errors import InputError
from .adapters import without_adapter
from .offloaded import weight_of
from .tensors import all_finite, check_editable


@dataclass(frozen=True)
class FeedForwardMatrix:
    """One feed-forward matrix.

    A *neuron* is a vector of the residual space: of FF2, which writes there, one column of its d x f matrix (a column
    of a `Linear` weight, a row of a `Conv1D` weight); of FF1, which reads there, one row.

    Attributes:
        module: The module that holds the weight.
        weight_name: The parameter's name in the model; of an expert's matrix see `ExpertName`.
        neuron_dim: The dimension of the weight that counts neurons.
        expert: Which of a parameter that holds the matrices of all experts; None where it holds one.
    """

    module: nn.Module
    weight_name: str
    neuron_dim: int
    expert: int | None = None

    @property
    def parameter(self) -> Tensor:
        """The parameter that holds the weight, alone or with those of other experts."""
        parameter: Tensor = weight_of(self.module, self.weight_name.rpartition(".")[2].partition("[")[0])
        return parameter

    @property
    def weight(self) -> Tensor:
        """The weight itself, in the module's own orientation; of an expert a view of the parameter."""
        return self.parameter if self.expert is None else self.parameter.detach()[self.expert]

    @property
    def name(self) -> str:
        """The module's name in the model."""
        return self.weight_name.removesuffix(".weight")

    @property
    def transposed(self) -> bool:
        """Whether the weight stands as inputs x outputs, as `Conv1D` has it, and not the other way round."""
        if self.expert is not None:
            return self.neuron_dim == 0
        return isinstance(without_adapter(self.module), Conv1D)

    @property
    def width(self) -> int:
        """f, the number of neurons."""
        return self.weight.shape[self.neuron_dim]

    @property
    def residual_width(self) -> int:
        """d, the width of the residual space."""
        return self.weight.shape[1 - self.neuron_dim]

    @property
    def rows(self) -> Float[Tensor, "f d"]:
        """The weight with one neuron a row: a view, which shares the weight's memory."""
        return self.weight.detach().movedim(self.neuron_dim, 0)

    @property
    def matrices(self) -> tuple[FeedForwardMatrix, ...]:
        """The weights that it is made of: itself; see `ExpertMatrices`."""
        return (self,)

    def neurons(self, indices: Tensor) -> Float[Tensor, "k d"]:
        """Returns a copy of the chosen neurons, one a row, in the weight's dtype."""
        return self.weight.detach().index_select(self.neuron_dim, indices).movedim(self.neuron_dim, 0).clone()

    def split(self, indices: Tensor) -> Iterator[tuple[FeedForwardMatrix, Tensor, Tensor]]:
        """Yields itself, which of the indices are its own (all), and these; see `ExpertMatrices`."""
        yield self, torch.arange(len(indices), device=indices.device), indices

    def given(self, args: Sequence[Any], kwargs: Mapping[str, Any], shape: Sequence[int]) -> Tensor:
        """Returns what the matrix is given in a call of its module: the activations, shape (*shape, f)."""
        given: Tensor = args[0] if args else next(iter(kwargs.values()))
        return given


def matrix_of(module: nn.Module, *, setting: str, name: str, width: int, writes: bool) -> FeedForwardMatrix:
    """Returns a module's matrix, after looking at whether it can be edited exactly.

    Args:
        module: The module that the settings name.
        setting: The setting that names it, for messages.
        name: The module's name in the model.
        width: d, the width of the residual space.
        writes: Whether the matrix writes to the residual space (FF2) or reads from it.

    Raises:
        InputError: When the weight is missing, merged with an adapter, packed, on the meta device, of another shape, or
            holds NaN or Inf.
    """
    weight = weight_of(module)
    if not isinstance(weight, Tensor):
        raise InputError(f'{setting} names "{name}", a {type(module).__name__} without a weight.')
    check_editable(weight, f"{name}.weight")
    if getattr(module, "merged", False):
        raise InputError(
            f'An adapter is merged into "{name}"; unmerge it first (unmerge_adapter), or edit the merged model by '
            "itself (merge_and_unload)."
        )
    neuron_dim = int(isinstance(without_adapter(module), Conv1D) != writes)
    if weight.dim() != 2 or weight.shape[1 - neuron_dim] != width:
        raise InputError(
            f'{setting} names "{name}" with a weight of shape {tuple(weight.shape)}; it must '
            f"{'write into' if writes else 'read'} the residual space of width {width}."
        )
    if not all_finite(weight):
        raise InputError(f'The weight "{name}.weight" holds NaN or Inf; load the model again before editing it.')
    return FeedForwardMatrix(module=module, weight_name=f"{name}.weight", neuron_dim=neuron_dim)
