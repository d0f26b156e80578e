"""The exact step: how far along a fixed direction until a token has at least a given rank.

Along the demotion direction every logit is a straight line of the step s, `logits - s * response`. Token v overtakes
the target t where the two lines cross. So the smallest step that gives the target rank r is an order statistic of the
crossings, and no search is needed (REVS, arXiv 2406.09325, section 3, searches it by repeated multiplication). Under a
LayerNorm the lines bend, and the same one-dimensional problem is solved by bisection.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Steps are nudged past the crossing, since the overtaking token has to be strictly above the target, not level with it:
# by this share, far below float32 resolution of any logit,
_PAST_THE_CROSSING = 1e-9
# and at least so far that the two logits differ by this share of the largest one, which float64 can tell apart. It
# decides where two tokens are level already, as they are in half precision: there the crossing is at 0.
_APART = 2.0**-48
# Halvings that bring any bracket below float64 resolution, and doublings before a rank counts as unreachable.
_HALVINGS = 60
_DOUBLINGS = 60
# How often a secant looks further ahead, at most eight times as far, before a figure counts as unreachable; how many
# secants are tried at most; and which share of what was missing may be passed.
_EXPANSIONS = 12
_SECANTS = 20
_PASSED = 1 / 250


def ranks(logits: Float[Tensor, "n vocabulary"], tokens: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Returns how many tokens stand strictly above each row's own token; 0 is the most likely."""
    return (logits > logits.gather(1, tokens[:, None])).sum(dim=-1)


def square_along(
    vector: Float[Tensor, " n"], mixed: Float[Tensor, " n"], direction: Float[Tensor, " n"], steps: Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Returns the mean square of vectors that moved against their directions.

    Args:
        vector: The mean square of each.
        mixed: Its mean product with its direction.
        direction: The mean square of that.
        steps: How far each has moved.
    """
    return vector - 2 * steps * mixed + steps**2 * direction


def typical_step(vector: Float[Tensor, " n"], direction: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Returns the step at which what is taken off a vector is as long as the vector, of the mean squares of both."""
    return (vector / direction.clamp_min(1e-30)).sqrt().clamp_min(1e-6)


def smallest_steps(
    logits: Float[Tensor, "n vocabulary"],
    responses: Float[Tensor, "n vocabulary"],
    tokens: Int[Tensor, " n"],
    rank: int,
) -> Float[Tensor, " n"]:
    """Finds for each row the smallest step s >= 0 that gives its token rank `rank` or more in `logits - s * response`.

    Args:
        logits: One row per vector, any positive scale.
        responses: What one unit of step takes off every logit of the row.
        tokens: Each row's target.
        rank: How many tokens have to stand strictly above it.

    Returns:
        The steps in float64; infinity where no step reaches the rank.
    """
    steps = torch.zeros(len(logits), dtype=torch.float64, device=logits.device)
    short = (ranks(logits, tokens) < rank).nonzero().flatten()
    if not len(short):
        return steps
    if rank >= logits.shape[-1]:
        steps[short] = torch.inf
        return steps
    logits, responses, tokens = logits[short].double(), responses[short].double(), tokens[short, None]
    gap = logits.gather(1, tokens) - logits
    speed = responses.gather(1, tokens) - responses
    # A token that falls faster than the target does, and stands above it now, will be lost on the way.
    lost = (speed < 0) & (gap < 0)
    crossings = gap / speed
    crossings = torch.where(speed > 0, crossings, torch.where((speed == 0) & (gap < 0), -torch.inf, torch.inf))
    nearest = crossings.kthvalue(rank, dim=-1).values
    leaving = torch.where(lost, gap / speed, -torch.inf)
    for row in lost.any(dim=-1).nonzero().flatten().tolist():
        nearest[row] = _crossing_with_losses(crossings[row], leaving[row][lost[row]], rank)
    largest = logits.abs().amax(dim=-1) + nearest * responses.abs().amax(dim=-1)
    apart = _APART * largest / _deciding_speeds(nearest, crossings, speed, leaving, rank)
    steps[short] = torch.where(
        nearest.isinf(), torch.inf, torch.maximum(nearest * (1 + _PAST_THE_CROSSING), nearest + apart)
    )
    return steps


def _deciding_speeds(
    nearest: Float[Tensor, " n"],
    crossings: Float[Tensor, "n vocabulary"],
    speed: Float[Tensor, "n vocabulary"],
    leaving: Float[Tensor, "n vocabulary"],
    rank: int,
) -> Float[Tensor, " n"]:
    """Returns how fast the slowest of the tokens falls behind that have to overtake at the crossing.

    Where several cross at one place, only as many of them are needed as are missing, and the fastest of them do.
    """
    there = crossings == nearest[:, None]
    deciding = torch.where(there, speed, 0.0).sum(dim=-1)
    for row in ((there.sum(dim=-1) > 1) & nearest.isfinite()).nonzero().flatten().tolist():
        above = (crossings[row] < nearest[row]).sum() + (leaving[row] > nearest[row]).sum()
        deciding[row] = speed[row][there[row]].sort(descending=True).values[rank - 1 - int(above)]
    return deciding


def _crossing_with_losses(
    crossings: Float[Tensor, " vocabulary"], leaving: Float[Tensor, " lost"], rank: int
) -> Float[Tensor, ""]:
    """Solves one row where some tokens above the target sink below it: the rank can fall between two crossings.

    The rank only rises at a crossing, so the answer is the first crossing after which enough tokens are above.
    """
    ordered = crossings.sort().values
    still_above = len(leaving) - torch.searchsorted(leaving.sort().values, ordered, right=True)
    reached = torch.arange(1, len(ordered) + 1, device=ordered.device) + still_above >= rank
    return ordered[reached.int().argmax()] if bool(reached.any()) else ordered.new_tensor(torch.inf)


def smallest_steps_by_bisection(
    ranks_at: Callable[[Float[Tensor, " n"]], Tensor],
    scales: Float[Tensor, " n"],
    rank: int,
    doublings: int = _DOUBLINGS,
) -> Float[Tensor, " n"]:
    """Solves the same problem where the rank is only known by asking for it, one O(V) evaluation a round.

    Args:
        ranks_at: Gives every row's rank after a step of its own, float64.
        scales: A typical size of a step for each row: where the search for an upper end starts.
        rank: The asked rank.
        doublings: How often the upper end is doubled at most.

    Returns:
        The upper ends of the brackets in float64: the rank is reached there; infinity where it never is.
    """
    low = torch.zeros_like(scales, dtype=torch.float64)
    high = scales.double().clone()
    already = ranks_at(low) >= rank
    for _ in range(doublings):
        reached = ranks_at(high) >= rank
        if bool((reached | already).all()):
            break
        low = torch.where(reached, low, high)
        high = torch.where(reached, high, high * 2)
    unreachable = ~(ranks_at(high) >= rank)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        reached = ranks_at(middle) >= rank
        low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
    return torch.where(already, 0.0, torch.where(unreachable, torch.inf, high))


def smallest_steps_by_secants(
    values_at: Callable[[Float[Tensor, " n"]], Float[Tensor, " n"]],
    scales: Float[Tensor, " n"],
    asked: Float[Tensor, " n"],
) -> Float[Tensor, " n"]:
    """Solves a like problem for a smooth figure that grows with the step, in far fewer evaluations (Illinois method).

    Args:
        values_at: Gives every row's figure after a step of its own, float64.
        scales: A typical size of a step for each row: where the search for an upper end starts.
        asked: The figure that each row must reach.

    Returns:
        Steps in float64 after which the figure is reached and passed by at most a 250th of what was missing; infinity
        where it never is.
    """
    low = torch.zeros_like(scales, dtype=torch.float64)
    missing = asked.double() - values_at(low).double()
    already = missing <= 0
    missing = missing.clamp_min(1e-12)
    # The secants aim between what is asked and the most that it may be passed by.
    asked = asked.double() + missing * _PASSED / 2
    high = scales.double().clone()
    behind, ahead = -missing, values_at(high).double() - asked
    for _ in range(_EXPANSIONS):
        short = (ahead < 0) & ~already
        if not bool(short.any()):
            break
        low, behind = torch.where(short, high, low), torch.where(short, ahead, behind)
        growth = (1.1 * missing / (ahead + missing).clamp_min(1e-12)).clamp(1.5, 8.0)
        high = torch.where(short, high * growth, high)
        ahead = values_at(high).double() - asked
    unreachable = ahead < 0
    margin = missing * _PASSED / 2
    was_ahead = torch.zeros_like(already)
    was_behind = torch.zeros_like(already)
    upper, lower = ahead.clone(), behind.clone()  # what the secants see; halved where one end stays too long
    for _ in range(_SECANTS):
        open_ = ~already & ~unreachable & (ahead > margin)
        if not bool(open_.any()):
            break
        middle = low + (high - low) * (-lower / (upper - lower).clamp_min(1e-300)).clamp(0.0, 1.0)
        value = values_at(middle).double() - asked
        # A hair short of what the secants aim at is still as much as is asked.
        reached = value >= -margin
        high, ahead = torch.where(reached & open_, middle, high), torch.where(reached & open_, value, ahead)
        low = torch.where(~reached & open_, middle, low)
        lower = torch.where(reached, torch.where(was_ahead, lower / 2, lower), value)
        upper = torch.where(reached, value.clamp_min(1e-12), torch.where(was_behind, upper / 2, upper))
        was_ahead, was_behind = reached, ~reached
    return torch.where(already, 0.0, torch.where(unreachable, torch.inf, high))
