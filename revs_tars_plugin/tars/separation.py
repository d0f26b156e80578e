"""A linear separation of a few states from many: the row of weights that tells a name from everything else."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

# A separation is as good as it gets after a few Newton steps.
_STEPS = 8
# How much more what has to be left alone counts than what has to be found.
_WEIGHT = 100.0
_RIDGE = 1e-3
# Cases this near to their margin still count, so that the set of those that do settles.
_SLACK = 0.05


def separating_row(
    found: Float[Tensor, "p d"], left_alone: Float[Tensor, "n d"], *, margin: float = -1.0
) -> Float[Tensor, " d"]:
    """Returns the row whose product is 1 and more with states that have to be found and below a margin with others.

    A support vector machine with squared hinges, solved by Newton steps: each solves the least squares of the cases
    that are on the wrong side of their margins.

    Args:
        found: The states that have to be found.
        left_alone: Those that have to be left alone.
        margin: Where these have to stay below.
    """
    row = torch.zeros(found.shape[1], device=found.device)
    ridge = _RIDGE * float(left_alone.square().mean()) * torch.eye(len(row), device=found.device)
    wrong = (torch.ones(len(found), dtype=torch.bool), torch.ones(len(left_alone), dtype=torch.bool))
    for _ in range(_STEPS):
        near, far = found[wrong[0].to(found.device)], left_alone[wrong[1].to(found.device)]
        square = near.T @ near / len(found) + _WEIGHT * (far.T @ far) / len(left_alone) + ridge
        target = near.sum(dim=0) / len(found) + _WEIGHT * margin * far.sum(dim=0) / len(left_alone)
        row = torch.linalg.solve(square, target)
        now = (found @ row < 1 + _SLACK, left_alone @ row > margin - _SLACK)
        if all(torch.equal(old.to(new.device), new) for old, new in zip(wrong, now, strict=True)):
            break
        wrong = now
    return row
