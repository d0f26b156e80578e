"""Step 3 of TARS: which feed-forward vectors carry the concept (section 3.3).

The paper compares directions. What decides in practice is which vectors *write* where the concept comes next and hardly
anywhere else, so the other affinities use what each neuron does on the concept's prompts and on ordinary text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from ..model.after_ff2 import AfterFF2
from ..model.experts import FeedForward


@dataclass(frozen=True)
class Neurons:
    """All neurons of one matrix, beside the concept.

    Attributes:
        layer: Their layer.
        matrix: `down`, `gate` or `up`.
        weights: The matrix itself.
        activations: What each neuron passes on at the end of the concept's prompts, the mean over prompts, shape (f,).
        activity: Root mean square of the same over ordinary text, shape (f,); None where it is not asked for.
        after: What the layer does with what they write; nothing for a matrix that reads.
    """

    layer: int
    matrix: str
    weights: FeedForward
    activations: Float[Tensor, " f"]
    activity: Float[Tensor, " f"] | None = None
    after: AfterFF2 = field(default_factory=AfterFF2)

    @property
    def vectors(self) -> Float[Tensor, "f d"]:
        """One row a neuron as the residual space sees it, float32; not kept, since it may be a copy."""
        return self.after.unscaled(self.weights.rows)

    @cached_property
    def norms(self) -> Float[Tensor, " f"]:
        """Their lengths."""
        norms: Tensor = self.vectors.norm(dim=1)
        return norms


@dataclass(frozen=True)
class Candidate:
    """One vector that may be reversed.

    Attributes:
        layer: Its layer.
        matrix: `down`, `gate` or `up`.
        neuron: Its index.
        affinity: How much it carries the concept; higher is more.
        sign: 1, or -1 where the vector works the other way round: through a negative activation, or as a row that
            looks for the targeting vector's opposite.
    """

    layer: int
    matrix: str
    neuron: int
    affinity: float
    sign: int


def affinities(
    neurons: Neurons, targeting: Float[Tensor, " d"], kind: str, specificity: float = 1.5
) -> Float[Tensor, " f"]:
    """Returns how much each neuron carries the concept.

    With `cos` the cosine of the neuron's vector with the targeting vector, `norm` its length, `a` its activation on the
    concept's prompts and `A` its activity on ordinary text:

    - `cosine`: `|cos|`, as published (with the sign of a SwiGLU activation either direction can carry the concept);
    - `contribution`: `cos * norm * a`, what it adds along the targeting vector there;
    - `contribution_per_activity`: `cos * norm * a / A`;
    - `specific`: `norm * |a| * (|a| / A)^specificity`, whatever its direction.
    """
    vectors, norms = neurons.vectors, neurons.norms
    cosines: Tensor = (vectors @ torch.nn.functional.normalize(targeting.to(vectors), dim=0)) / norms.clamp_min(1e-30)
    if kind == "cosine":
        return cosines.abs()
    active: Tensor = neurons.activations.to(vectors)
    if kind == "contribution":
        return cosines * norms * active
    assert neurons.activity is not None
    # A neuron that is never active on ordinary text is as specific as can be, not infinitely so.
    activity: Tensor = neurons.activity.to(vectors)
    activity = activity.clamp_min(1e-3 * float(activity.mean()) + 1e-30)
    if kind == "contribution_per_activity":
        return cosines * norms * active / activity
    return norms * active.abs() * (active.abs() / activity) ** specificity


def best_candidates(
    groups: Sequence[Neurons],
    targeting: Float[Tensor, " d"],
    kind: str,
    count: int,
    taken: Mapping[tuple[int, str], set[int]] | None = None,
    *,
    specificity: float = 1.5,
    spared: float = 0.0,
) -> list[Candidate]:
    """Returns the vectors of highest affinity over all matrices, highest first.

    Args:
        groups: The neurons of every matrix that may be edited.
        targeting: The targeting vector.
        kind: The affinity.
        count: How many at most.
        taken: Neurons that earlier concepts reversed, by layer and matrix; they are left alone, so that every concept
            can be undone by itself.
        specificity: See `affinities`.
        spared: Share of each matrix's neurons that is never chosen: those that write most on ordinary text. Some fire
            rarely and hold the model together (those behind its attention sinks): reversing one ruins every answer.
    """
    candidates: list[Candidate] = []
    for neurons in groups:
        scores = affinities(neurons, targeting, kind, specificity)
        if neurons.activity is not None and spared:
            writes = neurons.activity.to(scores) * neurons.norms
            scores[writes.topk(math.ceil(spared * len(writes))).indices] = -torch.inf
        for neuron in (taken or {}).get((neurons.layer, neurons.matrix), ()):
            scores[neuron] = -torch.inf
        top = scores.topk(min(count, len(scores)))
        signs = _signs(neurons, targeting)
        candidates += [
            Candidate(neurons.layer, neurons.matrix, index, score, int(signs[index]))
            for index, score in zip(top.indices.tolist(), top.values.tolist(), strict=True)
            if score > -float("inf")
        ]
    return sorted(candidates, key=lambda candidate: -candidate.affinity)[:count]


def _signs(neurons: Neurons, targeting: Float[Tensor, " d"]) -> Float[Tensor, " f"]:
    """Which way round a neuron works: by its activation where it writes, by its direction where it reads."""
    if neurons.matrix == "down":
        return torch.where(neurons.activations < 0, -1.0, 1.0)
    return torch.where(neurons.vectors @ targeting.to(neurons.vectors) < 0, -1.0, 1.0)
