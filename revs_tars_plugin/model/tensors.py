"""What can be said of any weight: whether it can be edited, whether it is whole, and which bits it holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from ..errors import InputError

# Bytes of one slice in its float64 form: looking at all of a large weight at once would take twice its size.
_MOST_BYTES = 2**26
_EDITABLE_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def row_slices(weight: Tensor) -> Iterator[Tensor]:
    """Yields a matrix, or vector, in slices of rows that stay small when they are widened to float64."""
    per_row = 8 * max(weight[:1].numel(), 1)
    yield from torch.split(weight, max(_MOST_BYTES // per_row, 1))


def all_finite(weight: Tensor) -> bool:
    """Returns whether a weight holds neither NaN nor Inf."""
    return all(bool(part.isfinite().all()) for part in row_slices(weight))


def fingerprint(weight: Tensor) -> str:
    """Returns a digest of a tensor's dtype, shape and bits."""
    digest = hashlib.blake2b(f"{weight.dtype}{tuple(weight.shape)}".encode(), digest_size=16)
    digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def checksum(weights: Iterable[Tensor]) -> str:
    """Returns what tells models apart that differ in a few weights: a digest of the sums of all their bits.

    Adding up whole numbers gives the same in any order, so it takes a fraction of the time of a digest of every bit.
    """
    digest = hashlib.blake2b(digest_size=12)
    for weight in weights:
        digest.update(f"{weight.dtype}{tuple(weight.shape)}".encode())
        for part in row_slices(weight.detach().reshape(max(len(weight), 1) if weight.dim() else 1, -1)):
            bits = part.contiguous().view(torch.uint8).flatten()
            whole = bits[: len(bits) // 8 * 8].view(torch.int64)
            digest.update(f"{int(whole.sum())} {int(bits[len(whole) * 8 :].sum())}".encode())
    return digest.hexdigest()


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Returns whether two tensors of one dtype are equal where 0.0 is not -0.0 and a NaN is equal to itself."""
    return torch.equal(first.contiguous().view(torch.uint8), second.contiguous().view(torch.uint8))


def is_plain(weight: Tensor) -> bool:
    """Returns whether a weight is a plain tensor of floating-point numbers: neither packed nor of another kind."""
    return weight.dtype in _EDITABLE_DTYPES and type(weight.data) is Tensor


def check_editable(weight: Tensor, name: str) -> None:
    """Checks that a weight has values here, in a dtype that can be edited.

    Raises:
        InputError: When it is on the meta device, or quantized.
    """
    if weight.is_meta:
        raise InputError(
            f'The weight "{name}" is on the meta device: it has no values here, and no hook of accelerate says where '
            "they are. Load the checkpoint."
        )
    if not is_plain(weight):
        kind = type(weight).__name__ if type(weight) is not nn.Parameter else str(weight.dtype)
        raise InputError(
            f'The weight "{name}" is quantized ({kind}); edit the unquantized model, then quantize the result.'
        )
