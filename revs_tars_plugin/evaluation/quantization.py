"""Does a secret come back when the edited model is quantized? Simulated: rounded weights in the model's own dtype."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..errors import InputError
from .run import EvaluationRun


def rounded(weight: Float[Tensor, "a b"], bits: int, channel_dim: int = 0) -> Float[Tensor, "a b"]:
    """Rounds a weight to the nearest of `2^bits - 1` levels a channel, symmetric about 0 (absmax scaling).

    Args:
        weight: The matrix.
        bits: Width of the simulated integers, 2 to 8.
        channel_dim: The dimension that counts output channels; each has a scale of its own.

    Raises:
        InputError: When `bits` is out of range.
    """
    if not 2 <= bits <= 8:
        raise InputError(f"bits is {bits}; weights are rounded to 2 to 8 bits.")
    most = 2 ** (bits - 1) - 1
    values = weight.float()
    scales = values.abs().amax(dim=1 - channel_dim, keepdim=True) / most
    scales = torch.where(scales > 0, scales, 1.0)
    return ((values / scales).round() * scales).to(weight.dtype)


@contextmanager
def quantized(model: nn.Module, bits: int) -> Iterator[None]:
    """Rounds the weights of all linear layers but the head while a `with` block lasts, and puts every bit back.

    Embedding and head keep their precision, as the usual 4- and 8-bit loaders leave them.
    """
    head = model.get_output_embeddings().weight  # type: ignore[operator]
    before: list[tuple[Tensor, Tensor]] = []
    try:
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, (nn.Linear, Conv1D)) and module.weight is not head:
                    weight = module.weight
                    new = rounded(weight.detach(), bits, channel_dim=1 if isinstance(module, Conv1D) else 0)
                    before.append((weight, weight.detach().clone()))
                    weight.copy_(new)
        yield
    finally:
        with torch.no_grad():
            for weight, old in before:
                weight.copy_(old)


def measure_quantized(run: EvaluationRun) -> None:
    """Scores the secrets at the output of the model with rounded weights."""
    for bits in (8, 4):
        with quantized(run.model, bits):
            run.score(f"quantization, {bits} bits", run.prompts, run.everyone)
