"""The exact step: how far along a fixed direction until a token has at least a given rank.

Along the demotion direction every logit is a straight line of the step s, `logits - s * response`. Token v overtakes
the target t where the two lines cross. So the smallest step that gives the target rank r is an order statistic of the
crossings, and no search is needed (REVS, arXiv 2406.09325, section 3, searches it by repeated multiplication).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Steps are nudged past the crossing by this share, far below float32 resolution of any logit, since the overtaking
# token has to be strictly above the target, not level with it.
_PAST_THE_CROSSING = 1e-9


def ranks(logits: Float[Tensor, "n vocabulary"], token: int) -> Int[Tensor, " n"]:
    """Returns how many tokens stand strictly above `token` in each row; 0 is the most likely."""
    return (logits > logits[:, token : token + 1]).sum(dim=-1)


def smallest_steps(
    logits: Float[Tensor, "n vocabulary"], response: Float[Tensor, " vocabulary"], token: int, rank: int
) -> Float[Tensor, " n"]:
    """Finds for each row the smallest step s >= 0 at which `token` has rank `rank` or more in `logits - s * response`.

    Args:
        logits: One row per vector, any positive scale.
        response: What one unit of step takes off every logit.
        token: The target's id.
        rank: How many tokens have to stand strictly above it.

    Returns:
        The steps in float64; infinity where no step reaches the rank.
    """
    gap = logits[:, token : token + 1].double() - logits.double()
    speed = response[token].double() - response.double()
    # A token that falls faster than the target does, and stands above it now, will be lost on the way.
    lost = (speed < 0) & (gap < 0)
    crossings = gap / speed
    crossings = torch.where(speed > 0, crossings, torch.where((speed == 0) & (gap < 0), -torch.inf, torch.inf))
    if rank <= 0:
        return torch.zeros(len(logits), dtype=torch.float64, device=logits.device)
    if rank >= logits.shape[-1]:
        return torch.full((len(logits),), torch.inf, dtype=torch.float64, device=logits.device)
    steps = crossings.kthvalue(rank, dim=-1).values
    for row in lost.any(dim=-1).nonzero().flatten().tolist():
        leaving = (gap[row] / speed)[lost[row]]
        steps[row] = _step_with_losses(crossings[row], leaving, rank)
    steps = steps.clamp_min(0.0)
    already = ranks(logits, token) >= rank
    return torch.where(already, 0.0, steps * (1 + _PAST_THE_CROSSING) + torch.finfo(torch.float64).tiny)


def _step_with_losses(
    crossings: Float[Tensor, " vocabulary"], leaving: Float[Tensor, " lost"], rank: int
) -> Float[Tensor, ""]:
    """Solves one row where some tokens above the target sink below it: the rank can fall between two crossings.

    The rank only rises at a crossing, so the answer is the first crossing after which enough tokens are above.
    """
    ordered = crossings.sort().values
    still_above = len(leaving) - torch.searchsorted(leaving.sort().values, ordered, right=True)
    reached = torch.arange(1, len(ordered) + 1, device=ordered.device) + still_above >= rank
    return ordered[reached.int().argmax()] if bool(reached.any()) else ordered.new_tensor(torch.inf)
