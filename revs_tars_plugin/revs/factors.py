"""Products with `C^-1`, by the Cholesky factor of `C`: one block, or of a mixture one for each expert."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

# The lower factors of a block-diagonal matrix; a sequence may read each from a file when it is asked for.
Factors = Sequence[Float[Tensor, "_ _"]]


def halfway(factors: Factors, keys: Float[Tensor, "n f"]) -> Float[Tensor, "f n"]:
    """Returns `L^-1 A^T`, whose products with itself are `A C^-1 A^T`.

    Args:
        factors: `L`, block by block.
        keys: `A`, one key a row.
    """
    return _solved(factors, keys.T, upper=False)


def rest_of_way(factors: Factors, between: Float[Tensor, "f r"]) -> Float[Tensor, "f r"]:
    """Returns `L^-T` times what came of `halfway`, so that the two together are `C^-1 A^T`.

    Args:
        factors: `L`, block by block.
        between: What `halfway` gave, or sums of its columns.
    """
    return _solved(factors, between, upper=True)


def _solved(factors: Factors, columns: Tensor, *, upper: bool) -> Tensor:
    parts, start = [], 0
    share = len(columns) // len(factors)
    for block in range(len(factors)):
        own = columns[start : start + share]
        start += share
        # An expert that none of the keys belongs to costs nothing, not even reading its factor.
        if len(factors) == 1 or bool(own.any()):
            factor = factors[block].to(own.device)
            # Not cholesky_solve, which copies the factor.
            own = torch.linalg.solve_triangular(factor.mT if upper else factor, own, upper=upper)
        parts.append(own)
    return parts[0] if len(parts) == 1 else torch.cat(parts)
