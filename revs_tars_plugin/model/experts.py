"""The feed-forward matrices of a mixture of experts, seen as the one matrix that they are together.

With `p_e` the weight that the router gives expert `e` for a token, `k_e` its activations and `F_e` its FF2, the block
writes `sum_e p_e F_e k_e`: one matrix `[F_0 F_1 ...]` of all experts' neurons, given `(p_0 k_0, p_1 k_1, ...)`, of
which most is 0. Neither depends on any FF2 of its layer, so what is exact for one matrix is exact here.

How `p_e` and `k_e` are found depends on how the experts stand in the model: see `FusedExperts` and `ExpertModules`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import InputError
from .forward import layer_output
from .matrices import FeedForwardMatrix

# How far the block's own output may be from the sum that it should be, as a share of its length.
_TOLERANCE = 0.05


@dataclass(frozen=True)
class ExpertMatrices:
    """FF2 of all experts of a layer.

    Attributes:
        module: The module that is called with every token and gives what the experts write.
        name: The name of the experts in the model.
        matrices: One for each expert.
    """

    module: nn.Module
    name: str
    matrices: tuple[FeedForwardMatrix, ...]

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
        weight = self.matrices[0].weight
        chosen = torch.empty(len(indices), self.matrices[0].residual_width, dtype=weight.dtype, device=weight.device)
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

    def given(self, args: Sequence[Any], kwargs: Mapping[str, Any], shape: Sequence[int]) -> Tensor:
        """Returns every expert's activations times its weight in a call of the module, float32, shape (*shape, f)."""
        raise NotImplementedError

    def beside(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Float[Tensor, "n d"] | float:
        """Returns what the module gives in a call beside its neurons' sum: biases, and experts that all tokens use."""
        raise NotImplementedError

    @torch.no_grad()
    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any], output: Tensor) -> None:
        """Checks on a few tokens that the module computes what it should: the sum of its neurons, and what is beside.

        Raises:
            InputError: When it computes something else.
        """
        whole = output.reshape(-1, output.shape[-1]).float()
        written = whole - self.beside(args, kwargs)
        given = self.given(args, kwargs, [len(whole)])
        active = given.any(dim=0).nonzero().flatten()
        summed = given[:, active] @ self.neurons(active).float()
        # What is beside may be much more than what the chosen experts write, and is rounded with it.
        rounding = float(torch.finfo(output.dtype).eps) * float(whole.norm())
        if not len(active) or float((summed - written).norm()) > _TOLERANCE * float(written.norm()) + rounding:
            raise InputError(
                f'The experts "{self.name}" compute something else than the weighted sum of what each writes, so they '
                "cannot be edited exactly."
            )


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
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        experts.check(args, kwargs, layer_output(output))

    return hook
