"""Steps 4 and 5 of REVS: how far each neuron goes, and how many are needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..model.after_ff2 import AfterFF2, within_reach
from ..model.logit_lens import Demotions, LogitLens
from .revs_hparams import RankMargins

# The published search: the target's logit starts here and is multiplied until the rank lies in the margin.
_FIRST_LOGIT, _DOWN, _UP, _ROUNDS = -10.0, 1.3, 0.8, 100

# Neurons whose steps are found at once.
_FEW = 8

Solver = Callable[[LogitLens, Tensor, Demotions, int, int], Tensor]


@dataclass(frozen=True)
class ActiveNeurons:
    """Neurons of one layer as they are at the last position.

    Attributes:
        indices: Which neurons, in the order in which they are edited, shape (k,).
        vectors: Their vectors, as the residual space sees them, shape (k, d).
        activations: Their activations, shape (k,).
    """

    indices: Int[Tensor, " k"]
    vectors: Float[Tensor, "k d"]
    activations: Float[Tensor, " k"]


@dataclass(frozen=True)
class NeuronSteps:
    """How far each chosen neuron moves along the demotion direction.

    Attributes:
        indices: The neurons, shape (k,).
        steps: Signed steps, shape (k,), float32: neuron `j` becomes `w_j - steps[j] * q`.
        demotion: How far the layer's output moves along `-q` at the last position, all neurons together.
    """

    indices: Int[Tensor, " k"]
    steps: Float[Tensor, " k"]
    demotion: float


def exact_steps(
    lens: LogitLens, vectors: Float[Tensor, "n d"], demotions: Demotions, bottom: int, top: int
) -> Float[Tensor, " n"]:
    """The smallest steps that bring each vector's target to the bottom rank."""
    return lens.steps_to_rank(vectors, demotions, bottom)


def iterative_steps(
    lens: LogitLens, vectors: Float[Tensor, "n d"], demotions: Demotions, bottom: int, top: int
) -> Float[Tensor, " n"]:
    """The published search, for comparison: set the target's logit, read the rank, multiply, at most 100 rounds.

    A vector whose search ends outside the margin gets the step it ended with, as published.
    """
    scale = lens.scale(vectors)
    start = lens.logits(vectors)
    target = start.gather(1, demotions.tokens[:, None])[:, 0]
    # Where the lens leaves the norm's division out, the published logit is in units of the divided ones.
    unit = torch.ones_like(target) if lens.has_offsets else scale
    logit = torch.full_like(target, _FIRST_LOGIT)
    steps = torch.zeros_like(target)
    searching = torch.ones_like(target, dtype=torch.bool)
    for _ in range(_ROUNDS):
        proposed = (target - logit * unit).clamp_min(0.0) * (scale if lens.has_offsets else 1.0)
        steps = torch.where(searching, proposed, steps)
        reached = lens.ranks(vectors - steps[:, None] * demotions.directions.to(vectors.device), demotions.tokens)
        searching &= (reached < bottom) | (reached > top)
        if not bool(searching.any()):
            break
        logit = torch.where(reached < bottom, logit * _DOWN, logit * _UP)
    return steps.double()


def needed_step(
    lens: LogitLens,
    demotion: Demotions,
    residual: Float[Tensor, " d"],
    ff2_output: Float[Tensor, " d"],
    *,
    margins: RankMargins,
    after: AfterFF2,
) -> float:
    """Returns how far a layer's output has to move along the demotion direction; 0 where the residual has its rank.

    The residual and the block's output move together, so each asked rank is one exact step and the larger one decides;
    the tops of the margins bound the step that the block's own rank may ask for.
    """
    whole, block = residual[None], after.written(ff2_output[None])
    of_whole = after.branches(whole, ff2_output[None], demotion.directions)
    step = lens.steps_to_rank(whole, demotion, margins.residual_bottom_rank, branches=of_whole)
    needed = float(within_reach(step, of_whole))
    if needed == 0.0 or bool(step.isinf()):
        return needed
    of_block = after.branches(block, ff2_output[None], demotion.directions)
    block_needed = float(lens.steps_to_rank(block, demotion, margins.mlp_bottom_rank, branches=of_block))
    if block_needed <= needed:
        return needed
    ceiling = float(lens.steps_to_rank(whole, demotion, margins.residual_top_rank, branches=of_whole))
    block_ceiling = float(lens.steps_to_rank(block, demotion, margins.mlp_top_rank, branches=of_block))
    return max(needed, min(block_needed, ceiling, block_ceiling))


def steps_of_neurons(
    lens: LogitLens,
    demotion: Demotions,
    neurons: ActiveNeurons,
    margins: RankMargins,
    *,
    needed: float,
    solver: Solver,
) -> NeuronSteps | None:
    """Moves neurons in their order to their asked rank until the layer's output has moved by `needed`.

    The last neuron goes only as far as is still missing. Where all of them at `neuron_bottom_rank` are too few, all go
    further, up to `neuron_top_rank`. A neuron with a negative activation contributes the reverse of its vector, so
    rank and step are taken with that sign.

    Args:
        lens: The logit lens.
        demotion: Direction and response of the target token, one row.
        neurons: Neurons of the layer, the first to be edited in front.
        margins: The asked ranks.
        needed: How far the layer's output has to move.
        solver: How the step of a neuron is found.

    Returns:
        The steps, or None where no neuron can help.
    """
    activation = neurons.activations
    signs = activation.float().sign()
    contributions = neurons.vectors.float() * signs[:, None]
    bottom, top = margins.neuron_bottom_rank, margins.neuron_top_rank
    strength = activation.abs().double()
    at_bottom = strength.new_zeros(0)
    steps = None
    # A few at a time: as a rule the first ones are enough, and each costs a product with the head.
    for rows in torch.split(torch.arange(len(activation), device=activation.device), _FEW):
        several = demotion.at([0] * len(rows))
        further = solver(lens, contributions[rows], several, bottom, top).to(at_bottom)
        at_bottom = torch.cat([at_bottom, further])
        steps = _share_at_bottom(needed, at_bottom, strength[: len(at_bottom)])
        if steps is not None:
            break
    if steps is None:
        at_top = lens.steps_to_rank(contributions, demotion.at([0] * len(activation)), top).to(at_bottom)
        steps = _share_beyond(needed, at_bottom, at_top, strength)
    used = (steps > 0).nonzero().flatten()
    if not len(used):
        return None
    steps = steps[used]
    return NeuronSteps(neurons.indices[used], (steps * signs[used]).float(), float((steps * strength[used]).sum()))


def _share_at_bottom(
    needed: float, at_bottom: Float[Tensor, " k"], strength: Float[Tensor, " k"]
) -> Float[Tensor, " k"] | None:
    """Deals the needed movement out in order; one moves the layer by its step times its strength. None if short."""
    useful = at_bottom.isfinite() & (strength > 0)
    movement = torch.where(useful, at_bottom, 0.0) * strength
    if float(movement.sum()) < needed:
        return None
    before = movement.cumsum(0) - movement
    taken = (needed - before).clamp(min=torch.zeros_like(movement), max=movement)
    return torch.where(useful, taken / strength, 0.0)


def _share_beyond(
    needed: float, at_bottom: Float[Tensor, " k"], at_top: Float[Tensor, " k"], strength: Float[Tensor, " k"]
) -> Float[Tensor, " k"]:
    """Lets every neuron go the same share of the way from its bottom to its top rank, all of it where that is short."""
    useful = at_bottom.isfinite() & (strength > 0)
    steps = torch.where(useful, at_bottom, 0.0)
    spare = torch.where(useful & at_top.isfinite(), at_top - at_bottom, 0.0).clamp_min(0.0)
    room = float((spare * strength).sum())
    missing = needed - float((steps * strength).sum())
    return steps + (min(1.0, missing / room) if room > 0 else 0.0) * spare
