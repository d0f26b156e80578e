"""Step 4 of TARS: angular reversal (section 3.4), one vector after another until the concept is gone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ..edits.trial import TrialEdits
from ..edits.weight_edits import NeuronEdit
from ..model.experts import FeedForward
from .affinity import Candidate

Matrices = Mapping[tuple[int, str], FeedForward]


@dataclass
class Reversals:
    """The vectors of one concept that were reversed so far.

    Attributes:
        chosen: The vectors, in the order in which they were reversed.
        before: Their values before, the weights' dtype, shape (d,) each.
        after: Their values after.
    """

    chosen: list[Candidate] = field(default_factory=list)
    before: list[Tensor] = field(default_factory=list)
    after: list[Tensor] = field(default_factory=list)

    def edits(self, matrices: Matrices) -> tuple[NeuronEdit, ...]:
        """Returns them as one edit a matrix."""
        by_matrix: dict[tuple[int, str], list[int]] = {}
        for place, candidate in enumerate(self.chosen):
            by_matrix.setdefault((candidate.layer, candidate.matrix), []).append(place)
        edits = []
        for key, places in by_matrix.items():
            places.sort(key=lambda place: self.chosen[place].neuron)
            neurons = torch.tensor([self.chosen[place].neuron for place in places])
            before, after = (torch.stack([values[i] for i in places]) for values in (self.before, self.after))
            edits += [
                NeuronEdit.of(part, own, before[which], after[which])
                for part, which, own in matrices[key].split(neurons)
            ]
        return tuple(edits)


def reversed_vector(
    old: Float[Tensor, " d"], targeting: Float[Tensor, " d"], sign: int, scale: float, *, added: bool = False
) -> Float[Tensor, " d"]:
    """Returns the targeting vector reversed, as long as the old vector times `scale`, in that one's dtype.

    Args:
        old: The vector that it replaces.
        targeting: The targeting vector, of any length.
        sign: 1; or -1 where the vector works with a negative factor, so that what it adds is reversed in any case.
        scale: Its length as a share of the old one's.
        added: Add it to the old vector in place of that.
    """
    unit = torch.nn.functional.normalize(targeting.to(old.device, torch.float32), dim=0)
    new: Tensor = -sign * scale * old.float().norm() * unit
    return (old.float() + new if added else new).to(old.dtype)


@dataclass(frozen=True)
class Reverser:
    """Reverses vectors along one targeting vector.

    Attributes:
        matrices: Where they stand, by layer and matrix.
        targeting: For each matrix the targeting vector as its own vectors have to stand for it, shape (d,).
        scale: Length of a reversed vector as a share of the old one's.
        added: Whether it is added to that one.
        trial: Where the edits are written.
    """

    matrices: Matrices
    targeting: Mapping[tuple[int, str], Float[Tensor, " d"]]
    scale: float
    added: bool
    trial: TrialEdits

    def reverse(self, candidates: Sequence[Candidate], done: Reversals) -> None:
        """Reverses every candidate and adds it to what is done."""
        for candidate in candidates:
            place = (candidate.layer, candidate.matrix)
            matrix = self.matrices[place]
            index = torch.tensor([candidate.neuron], device=matrix.matrices[0].weight.device)
            old = matrix.neurons(index)
            targeting = self.targeting[place]
            new = reversed_vector(old[0], targeting, candidate.sign, self.scale, added=self.added)[None]
            self.trial.write_neurons(matrix, index, new)
            done.chosen.append(candidate)
            done.before.append(old[0])
            done.after.append(new[0])

    def reverse_until(
        self, candidates: Sequence[Candidate], probability: Callable[[], float], before: float, goal: float
    ) -> tuple[Reversals, float]:
        """Reverses candidates in their order until the concept's probability is below the goal, or none is left.

        Its logarithm falls by about as much with each vector, which says how many are needed. A third of these at a
        time is reversed before the model is asked again, and half as many as there are already at most, so that hardly
        any is reversed in vain.

        Args:
            candidates: The vectors, the first to be reversed in front.
            probability: Called after reversals for the concept's probability on the model as it stands.
            before: What it was on the unedited model, above 0.
            goal: Where to stop.

        Returns:
            What was reversed, and the last probability.
        """
        done = Reversals()
        last, count = before, 1
        while len(done.chosen) < len(candidates):
            start = len(done.chosen)
            self.reverse(candidates[start : start + count], done)
            last = probability()
            if last < goal:
                break
            fallen = math.log(before / last) / len(done.chosen)
            needed = math.log(last / goal) / fallen if fallen > 0 else 0.0
            count = max(1, min(int(needed / 3), len(done.chosen) // 2))
        return done, last

    def take_back(self, done: Reversals) -> None:
        """Puts the vectors back that were reversed."""
        for candidate, old in zip(done.chosen, done.before, strict=True):
            matrix = self.matrices[candidate.layer, candidate.matrix]
            index = torch.tensor([candidate.neuron], device=matrix.matrices[0].weight.device)
            self.trial.write_neurons(matrix, index, old[None])
