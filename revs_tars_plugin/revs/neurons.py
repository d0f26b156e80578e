"""Steps 3 to 5 of REVS: which neurons of a layer are edited, how far each goes, and how many are needed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..decoder import FF2
from ..vocabulary import Demotion, Vocabulary
from .revs_hparams import RankMargins


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


def needed_step(
    vocabulary: Vocabulary,
    demotion: Demotion,
    residual: Float[Tensor, " d"],
    ff2_output: Float[Tensor, " d"],
    margins: RankMargins,
) -> float:
    """Returns how far a layer's output has to move along the demotion direction; 0 where the residual has its rank.

    The residual and the block's output move together, so each asked rank is one exact step and the larger one decides;
    the tops of the margins bound the step that the block's own rank may ask for.
    """
    logits = vocabulary.logits(torch.stack([residual, ff2_output]))
    lens, block = logits[:1], logits[1:]
    asked = float(vocabulary.steps_to_rank(lens, demotion, margins.residual_bottom_rank))
    if asked == 0.0:
        return 0.0
    ceiling = float(vocabulary.steps_to_rank(lens, demotion, margins.residual_top_rank))
    block_ceiling = float(vocabulary.steps_to_rank(block, demotion, margins.mlp_top_rank))
    block_asked = float(vocabulary.steps_to_rank(block, demotion, margins.mlp_bottom_rank))
    return max(asked, min(block_asked, ceiling, block_ceiling))


def choose_neurons(
    ff2: FF2,
    activation: Float[Tensor, " f"],
    vocabulary: Vocabulary,
    demotion: Demotion,
    margins: RankMargins,
    *,
    needed: float,
    n_candidates: int,
    n_neurons: int,
) -> NeuronSteps | None:
    """Chooses neurons by the paper's hybrid score and the exact step of each.

    Candidates are the most active neurons; those whose contribution ranks the target highest come first. A neuron with
    a negative activation contributes the reverse of its vector, so rank and step are taken with that sign.
    Neurons go to `neuron_bottom_rank` one after another until the layer has moved by `needed`; the last one goes only
    as far as is still missing. Where `n_neurons` are too few at that rank, all go further, up to `neuron_top_rank`.

    Args:
        ff2: The layer's FF2.
        activation: Its input at the last position.
        vocabulary: The logit lens.
        demotion: Direction and response of the target token.
        margins: The asked ranks.
        needed: How far the layer's output has to move.
        n_candidates: How many neurons pass the activation filter.
        n_neurons: The most neurons to edit.

    Returns:
        The steps, or None where no neuron can help.
    """
    activation = activation.float()
    candidates = activation.abs().topk(min(n_candidates, ff2.width)).indices
    signs = activation[candidates].sign()
    logits = vocabulary.logits(ff2.neurons(candidates).float() * signs[:, None])
    order = (logits > logits[:, demotion.token, None]).sum(dim=-1).argsort(stable=True)[:n_neurons]
    logits, candidates, signs = logits[order], candidates[order], signs[order]
    at_bottom = vocabulary.steps_to_rank(logits, demotion, margins.neuron_bottom_rank)
    at_top = vocabulary.steps_to_rank(logits, demotion, margins.neuron_top_rank)
    strength = activation[candidates].abs().to(at_bottom)
    steps = _share(needed, at_bottom.to(strength.device), at_top.to(strength.device), strength)
    used = steps > 0
    if not bool(used.any()):
        return None
    steps, strength = steps[used], strength[used]
    return NeuronSteps(candidates[used], (steps * signs[used]).float(), float((steps * strength).sum()))


def _share(
    needed: float, at_bottom: Float[Tensor, " k"], at_top: Float[Tensor, " k"], strength: Float[Tensor, " k"]
) -> Float[Tensor, " k"]:
    """Deals the needed movement out to neurons in order; each moves the layer by its step times its strength."""
    useful = at_bottom.isfinite() & (strength > 0)
    steps = torch.where(useful, at_bottom, 0.0)
    movement = steps * strength
    before = movement.cumsum(0) - movement
    if float(movement.sum()) >= needed:
        return torch.where(
            useful, (needed - before).clamp(min=torch.zeros_like(movement), max=movement) / strength, 0.0
        )
    # The bottom ranks together are too little: every neuron goes the same share of the way to its top rank.
    spare = torch.where(useful & at_top.isfinite(), at_top - at_bottom, 0.0).clamp_min(0.0)
    room = float((spare * strength).sum())
    share = min(1.0, (needed - float(movement.sum())) / room) if room > 0 else 0.0
    return steps + share * spare
