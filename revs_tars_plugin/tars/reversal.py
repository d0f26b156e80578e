"""Step 4 of TARS: angular reversal (section 3.4), one vector after another until the concept is gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ..decoder import FeedForwardMatrix
from ..trial_edits import TrialEdits
from ..weight_edits import NeuronEdit
from .affinity import Candidate


@dataclass
class Reversals:
    """The vectors of one concept that were reversed so far.

    Attributes:
        chosen: Which, in the order in which they were reversed.
        before: Their values before, the weights' dtype, shape (d,) each.
        after: Their values after.
    """

    chosen: list[Candidate] = field(default_factory=list)
    before: list[Tensor] = field(default_factory=list)
    after: list[Tensor] = field(default_factory=list)

    def edits(self, matrices: Mapping[tuple[int, str], FeedForwardMatrix]) -> tuple[NeuronEdit, ...]:
        """Returns them as one edit a matrix."""
        found = []
        for key in dict.fromkeys((candidate.layer, candidate.matrix) for candidate in self.chosen):
            own = [i for i, candidate in enumerate(self.chosen) if (candidate.layer, candidate.matrix) == key]
            own.sort(key=lambda i: self.chosen[i].neuron)
            found.append(
                NeuronEdit(
                    matrices[key].weight_name,
                    matrices[key].neuron_dim,
                    torch.tensor([self.chosen[i].neuron for i in own]),
                    torch.stack([self.before[i] for i in own]).cpu(),
                    torch.stack([self.after[i] for i in own]).cpu(),
                    matrices[key].width,
                    matrices[key].transposed,
                )
            )
        return tuple(found)


def reversed_vector(
    old: Float[Tensor, " d"], targeting: Float[Tensor, " d"], sign: int, scale: float
) -> Float[Tensor, " d"]:
    """Returns the targeting vector reversed, as long as the vector it replaces times `scale`, in that one's dtype.

    `sign` is -1 where the vector works with a negative factor, so that what it adds is reversed in any case.
    """
    unit = torch.nn.functional.normalize(targeting.to(old.device, torch.float32), dim=0)
    new: Tensor = -sign * scale * old.float().norm() * unit
    return new.to(old.dtype)


def reverse_until(
    candidates: Sequence[Candidate],
    matrices: Mapping[tuple[int, str], FeedForwardMatrix],
    targeting: Float[Tensor, " d"],
    scale: float,
    trial: TrialEdits,
    probability: Callable[[], float],
    goal: float,
) -> tuple[Reversals, float]:
    """Reverses candidates in their order until the concept's probability is below the goal, or none is left.

    Args:
        candidates: The vectors, the first to be reversed in front.
        matrices: Where they stand, by layer and matrix.
        targeting: The targeting vector.
        scale: Length of a reversed vector as a share of the one it replaces.
        trial: Where the edits are written.
        probability: Asked after each reversal for the concept's probability on the model as it stands.
        goal: Where to stop.

    Returns:
        What was reversed, and the last probability.
    """
    done = Reversals()
    last = probability() if not candidates else float("nan")
    for candidate in candidates:
        reverse_all([candidate], matrices, targeting, scale, trial, done)
        last = probability()
        if last < goal:
            break
    return done, last


def reverse_all(
    candidates: Sequence[Candidate],
    matrices: Mapping[tuple[int, str], FeedForwardMatrix],
    targeting: Float[Tensor, " d"],
    scale: float,
    trial: TrialEdits,
    done: Reversals,
) -> None:
    """Reverses every candidate and adds it to what is done; the arguments are those of `reverse_until`."""
    for candidate in candidates:
        matrix = matrices[candidate.layer, candidate.matrix]
        index = torch.tensor([candidate.neuron], device=matrix.weight.device)
        old = matrix.neurons(index)
        new = reversed_vector(old[0], targeting, candidate.sign, scale)[None]
        trial.write_neurons(matrix.weight_name, matrix.weight, matrix.neuron_dim, index, new, matrix.transposed)
        done.chosen.append(candidate)
        done.before.append(old[0])
        done.after.append(new[0])


def take_back(done: Reversals, matrices: Mapping[tuple[int, str], FeedForwardMatrix], trial: TrialEdits) -> None:
    """Puts the vectors back that were reversed."""
    for candidate, old in zip(done.chosen, done.before, strict=True):
        matrix = matrices[candidate.layer, candidate.matrix]
        index = torch.tensor([candidate.neuron], device=matrix.weight.device)
        trial.write_neurons(matrix.weight_name, matrix.weight, matrix.neuron_dim, index, old[None], matrix.transposed)
