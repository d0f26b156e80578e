"""Whether a weight is whole, looked at in slices: checking all of a large one at once takes twice its size."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# Of the slices' float64 form.
_MOST_BYTES = 2**26


def row_slices(weight: Tensor) -> Iterator[Tensor]:
    """Yields a matrix, or vector, in slices of rows that stay small when they are widened to float64."""
    per_row = 8 * max(weight[:1].numel(), 1)
    yield from torch.split(weight, max(_MOST_BYTES // per_row, 1))


def all_finite(weight: Tensor) -> bool:
    """Returns whether a weight holds neither NaN nor Inf."""
    return all(bool(part.isfinite().all()) for part in row_slices(weight))
