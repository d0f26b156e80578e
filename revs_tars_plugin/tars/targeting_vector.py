"""Step 2 of TARS: the targeting vector, which triggers the concept's name in the head (section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from ..model.logit_lens import LogitLens

# Share of a round's candidates whose mean the next round starts from.
_KEPT = 8


def whitened(lens: LogitLens, tokens: Sequence[int]) -> Float[Tensor, " d"]:
    """Returns the unit vector `sum over t of (W^T W)^-1 W[t]`: what raises the logits of the name and no others.

    Of the published search's aim (a vector that the head reads as the name) this is the solution in closed form, with
    what all states share taken out by the head's own second moment.
    """
    directions = lens.demotions(torch.tensor(list(tokens))).directions
    # A demotion direction is divided by the final norm's gain; the vectors compared here are not.
    raising = directions * lens.norm.gain.to(directions.device)
    return torch.nn.functional.normalize(raising.sum(dim=0), dim=0)


def refined_by_noise(
    lens: LogitLens,
    concept: Float[Tensor, " d"],
    tokens: Sequence[int],
    *,
    probability: float,
    scale: float,
    candidates: int,
    rounds: int,
    generator: torch.Generator,
) -> Float[Tensor, " d"]:
    """Searches around the concept vector for one that triggers the name, as published: noise, head, keep the best.

    Args:
        lens: Final norm and head.
        concept: The approximate concept vector.
        tokens: The tokens that begin the name.
        probability: What the head must give them together.
        scale: Length of the noise as a share of the vector's.
        candidates: How many are drawn in a round.
        rounds: How many rounds.
        generator: Where the noise comes from.

    Returns:
        The vector, of the length it has in the residual space.

    Raises:
        InputError: When no candidate reaches the probability; names the best found.
    """
    centre, best, best_probability = concept, concept, -1.0
    size = scale * float(concept.norm()) / len(concept) ** 0.5
    for _ in range(rounds):
        noise = torch.randn(candidates, len(concept), generator=generator).to(concept.device)
        tried = torch.cat([centre[None], centre + size * noise])
        probabilities = name_probabilities(lens.full_logits(tried), tokens)
        order = probabilities.argsort(descending=True)
        if float(probabilities[order[0]]) > best_probability:
            best, best_probability = tried[order[0]], float(probabilities[order[0]])
        if best_probability >= probability:
            return best
        centre = tried[order[: max(1, candidates // _KEPT)]].mean(dim=0)
    raise InputError(
        f"No noise candidate triggers the concept's name with targeting_probability {probability:g}; the best found "
        f"has {best_probability:.3g}. Lower it, or raise rounds, candidates or noise_scale."
    )


def name_probabilities(logits: Float[Tensor, "n vocabulary"], tokens: Sequence[int]) -> Float[Tensor, " n"]:
    """Returns the probability that any of the tokens that begin the name comes next, for each row of logits."""
    log_probabilities = logits.log_softmax(dim=-1)
    return log_probabilities[:, torch.tensor(list(tokens), device=logits.device)].logsumexp(dim=-1).exp()
