"""Experts that are modules of their own, as transformers before version 5 and other models have them.

Each expert is called with the tokens that the router sends it, and the block adds up what they give: which tokens these
were, and with what weights, is nobody's to ask. It is read off the block's derivative: what it gives is linear in what
each expert gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..errors import InputError
from .adapters import without_adapter
from .experts import ExpertMatrices
from .forward import layer_output
from .matrices import matrix_of
from .offloaded import weight_of
from .packed import is_packed

# What families call FF2 of an expert, where its shape alone does not tell.
_SECOND = ("down_proj", "w2", "fc2", "wo", "c_proj", "output_linear", "dense_4h_to_h")
_MATRIX = 2


@dataclass(frozen=True)
class _Call:
    """One call of an expert's FF2 within a call of the block.

    Attributes:
        expert: Which one.
        activations: What it was given, one token a row, shape (m, f).
        output: What it gave, from which the block goes on.
    """

    expert: int
    activations: Float[Tensor, "m f"]
    output: Tensor


@dataclass(frozen=True)
class ExpertModules(ExpertMatrices):
    """FF2 of all experts of a layer, each a module of its own; `module` is the block that routes tokens to them."""

    def given(self, args: Sequence[Any], kwargs: Mapping[str, Any], shape: Sequence[int]) -> Tensor:
        """Returns every expert's activations times its weight in a call of the module, float32, shape (*shape, f).

        The block is run once more for it.

        Raises:
            InputError: When the block's derivative cannot be had.
        """
        calls, rows = self._run(args, kwargs)
        width = self.matrices[0].width
        activations = torch.zeros(len(rows), len(self.matrices), width, device=rows.device)
        if calls:
            for call, (tokens, weights) in zip(calls, self._routes(calls, rows), strict=True):
                weighted = call.activations.float() * weights[:, None]
                activations[:, call.expert].index_add_(0, tokens.to(rows.device), weighted.to(rows.device))
        return activations.reshape(*shape, len(self.matrices) * width)

    @torch.no_grad()
    def beside(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Float[Tensor, "n d"] | float:
        """Returns what the block gives while every neuron is silent."""
        return self._run(args, kwargs, silent=True)[1].float()

    def _run(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], *, silent: bool = False
    ) -> tuple[list[_Call], Tensor]:
        """Runs the block once more and returns what it gives, a token a row; gradients end at what experts gave."""
        calls: list[_Call] = []

        def keep(expert: int) -> Callable[..., Tensor]:
            def hook(_module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
                if silent:  # a bias and an adapter speak on
                    rows = self.matrices[expert].rows
                    return output - (given[0].to(rows) @ rows).to(output)
                leaf = output.detach().requires_grad_()
                calls.append(_Call(expert, given[0].detach().reshape(-1, given[0].shape[-1]), leaf))
                return leaf.clone()  # the block may go on in place

            return hook

        with ExitStack() as hooks, torch.set_grad_enabled(not silent):
            for expert, matrix in enumerate(self.matrices):
                hooks.callback(matrix.module.register_forward_hook(keep(expert)).remove)
            with self._derived():
                output = layer_output(self.module.forward(*args, **kwargs))
            rows = output.reshape(-1, output.shape[-1])
        return calls, rows

    @contextmanager
    def _derived(self) -> Iterator[None]:
        """Says in one sentence that a block has no derivative."""
        try:
            yield
        except RuntimeError as error:
            raise InputError(
                f'What the experts "{self.name}" are given cannot be told: the block around them has no derivative '
                f"({' '.join(str(error).split())[:80]})."
            ) from error

    def _routes(self, calls: Sequence[_Call], rows: Float[Tensor, "n d"]) -> list[tuple[Tensor, Float[Tensor, " m"]]]:
        """Which token each row of each call belongs to, and with what weight.

        The first coordinate of the derivative is the weight, the others are it or 0: the token's number in base 2.
        """
        digits = torch.arange(max(len(rows) - 1, 1).bit_length(), device=rows.device)
        codes = torch.zeros_like(rows)
        codes[:, 0] = 1
        codes[:, 1 : len(digits) + 1] = (torch.arange(len(rows), device=rows.device)[:, None] >> digits & 1).to(rows)
        with self._derived():
            found = torch.autograd.grad(rows, [call.output for call in calls], codes, allow_unused=True)
        routes = []
        for call, gradient in zip(calls, found, strict=True):
            if gradient is None:  # given tokens, and not used
                gradient = torch.zeros_like(call.output)
            gradient = gradient.reshape(-1, gradient.shape[-1])
            bits = (gradient[:, 1 : len(digits) + 1] != 0).long()
            routes.append(((bits << digits.to(bits.device)).sum(dim=1), gradient[:, 0].float()))
        return routes


def expert_modules_of(module: nn.ModuleList, block: nn.Module, *, setting: str, name: str, width: int) -> ExpertModules:
    """Returns experts that are modules of their own, after looking at whether each can be edited exactly.

    Args:
        module: The list of experts, which the settings name.
        block: The module around it, which routes tokens to them.
        setting: The setting that names the list, for messages.
        name: The list's name in the model.
        width: d, the width of the residual space.

    Raises:
        InputError: When an expert has no FF2 that can be told from its other matrices, or one that cannot be edited.
    """
    matrices = []
    for number, expert in enumerate(module):
        part, second = _second(expert, f"{name}.{number}", setting, width)
        if is_packed(second):
            raise InputError(
                f'{setting} names "{name}", experts whose weights are packed; load the model unpacked to edit them.'
            )
        place = ".".join(filter(None, (name, str(number), part)))
        matrices.append(matrix_of(second, setting=setting, name=place, width=width, writes=True))
    if not matrices or len({matrix.width for matrix in matrices}) > 1:
        raise InputError(f'{setting} names "{name}", where experts of one width must stand.')
    return ExpertModules(block, name, tuple(matrices))


def _second(expert: nn.Module, name: str, setting: str, width: int) -> tuple[str, nn.Module]:
    """FF2 of one expert and its name there: the matrix that writes to the residual space."""
    writing = {part: module for part, module in _linear_maps(expert) if _outputs(module) == width}
    if len(writing) > 1:
        writing = {part: module for part, module in writing.items() if part.rpartition(".")[2] in _SECOND}
    if len(writing) != 1:
        raise InputError(
            f'{setting} names experts, and of "{name}" it cannot be told which matrix writes into the residual space '
            f"of width {width}."
        )
    return next(iter(writing.items()))


def _linear_maps(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The matrices of an expert by name; not those of an adapter within one."""
    if _outputs(module):
        yield name, module
        return
    for part, inner in module.named_children():
        yield from _linear_maps(inner, f"{name}.{part}" if name else part)


def _outputs(module: nn.Module) -> int:
    if is_packed(module):
        return int(module.out_features)  # type: ignore[arg-type]
    weight = weight_of(module)
    if not isinstance(weight, Tensor) or weight.dim() != _MATRIX:
        return 0
    return weight.shape[1 if isinstance(without_adapter(module), Conv1D) else 0]
