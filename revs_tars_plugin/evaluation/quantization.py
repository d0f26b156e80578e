"""Does a secret come back when the edited model is quantized? Simulated: rounded weights in the model's own dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import InputError
from .changed_weights import linear_weights, replaced_weights
from .exposure import note_exposures
from .run import EvaluationRun

# The levels of NF4: means of sixteen quantiles of a normal distribution, 0 among them, between -1 and 1.
_NORMAL_FLOAT = (
    -1.0,
    -0.6961928,
    -0.5250731,
    -0.3949175,
    -0.2844414,
    -0.1847734,
    -0.0910500,
    0.0,
    0.0795803,
    0.1609302,
    0.2461123,
    0.3379152,
    0.4407098,
    0.5626170,
    0.7229568,
    1.0,
)


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


def rounded_to_normal_float(
    weight: Float[Tensor, "a b"], block: int = 64, channel_dim: int = 0
) -> Float[Tensor, "a b"]:
    """Rounds a weight to the sixteen levels of NF4, the quantiles of a normal distribution (arXiv 2305.14314).

    Args:
        weight: The matrix.
        block: How many weights, one after the other, share a scale.
        channel_dim: The dimension that counts output channels; blocks run along the other one.
    """
    rows = weight.float() if channel_dim == 0 else weight.float().T
    flat = rows.flatten()
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % block)).reshape(-1, block)
    scales = padded.abs().amax(dim=1, keepdim=True)
    levels = torch.tensor(_NORMAL_FLOAT, device=weight.device)
    middles = (levels[1:] + levels[:-1]) / 2
    values = levels[torch.bucketize(padded / torch.where(scales > 0, scales, 1.0), middles)] * scales
    new = values.flatten()[: len(flat)].reshape(rows.shape)
    return (new if channel_dim == 0 else new.T).to(weight.dtype)


@contextmanager
def quantized(model: nn.Module, bits: int, *, normal_float: bool = False) -> Iterator[None]:
    """Rounds the weights of all linear layers but the head while a `with` block lasts, and puts every bit back.

    Embedding and head keep their precision, as the usual 4- and 8-bit loaders leave them.

    Args:
        model: A causal language model.
        bits: Width of the simulated integers, 2 to 8.
        normal_float: Round to NF4 instead, the format of most 4-bit checkpoints.
    """
    if normal_float and bits != 4:
        raise InputError(f"bits is {bits}; NF4 has 4.")

    def rounding(channel_dim: int) -> Callable[[Tensor], Tensor]:
        if normal_float:
            return lambda weight: rounded_to_normal_float(weight, channel_dim=channel_dim)
        return lambda weight: rounded(weight, bits, channel_dim)

    with replaced_weights((weight, rounding(channel_dim)) for weight, channel_dim in linear_weights(model)):
        yield


def measure_quantized(run: EvaluationRun) -> None:
    """Scores the secrets at the output of the model with rounded weights, and with 4 bits compares them once more."""
    for bits in (8, 4):
        with quantized(run.model, bits):
            run.score(f"quantization, {bits} bits", run.prompts, run.everyone)
            if bits == 4 and "exposure" in run.options.attacks:
                note_exposures(run, "exposure, 4 bits", run.compared())
    with quantized(run.model, 4, normal_float=True):
        run.score("quantization, NF4", run.prompts, run.everyone)
