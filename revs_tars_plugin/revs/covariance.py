"""`localization: covariance`: the exact step, written with the key that ROME and MEMIT use, many secrets at a time.

The value direction and the step are those of REVS; what differs is who listens to them. The key `u = C^-1 a` (`C` the
second moment of FF2's inputs over text that must not change) answers to the secret's own context and hardly to others.
All secrets of a batch are solved together: `dW = -Y D`, `Y = C^-1 A^T`, `(A Y + rho) D = diag(s) Q`, so that each
context triggers its own direction and nobody else's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..decoder import Decoder, LayerState
from ..trial_edits import TrialEdits


@dataclass(frozen=True)
class KeyGeometry:
    """Per layer, the matrix whose inverse makes keys.

    Attributes:
        moments: What must not change, layer by layer, (f, f) each: a weighted sum of second moments and the ridge.
        damping: rho for each layer, as a share of each key's own `a C^-1 a`.
    """

    moments: Mapping[int, Float[Tensor, "f f"]]
    damping: Mapping[int, float]


def layer_schedule(layers: Sequence[int], n_layers: int, first: float, last: float) -> dict[int, float]:
    """Returns a value per layer, geometric from the model's first layer to its last (linear where an end is 0)."""
    share = {layer: layer / max(n_layers - 1, 1) for layer in layers}
    if first > 0 and last > 0:
        return {layer: first * (last / first) ** part for layer, part in share.items()}
    return {layer: first + (last - first) * part for layer, part in share.items()}


def demote_jointly(
    decoder: Decoder,
    contexts: Sequence[Sequence[int]],
    tokens: Sequence[int],
    asked_ranks: Sequence[int],
    geometry: KeyGeometry,
    trial: TrialEdits,
) -> list[int]:
    """Runs one sweep: one batched forward pass that edits every layer for all contexts together.

    Args:
        decoder: The model.
        contexts: The token ids in front of each target.
        tokens: The targets.
        asked_ranks: The rank each must have in every edited layer's residual.
        geometry: What must not change.
        trial: Where the edits are written.

    Returns:
        For each context, how many layers moved it.
    """
    vocabulary = decoder.vocabulary
    demotions = vocabulary.demotions(torch.tensor(list(tokens)))
    moved = torch.zeros(len(tokens), dtype=torch.long)
    by_rank = {rank: [i for i, asked in enumerate(asked_ranks) if asked == rank] for rank in sorted(set(asked_ranks))}

    def visit(layer: int, state: LayerState) -> Tensor | None:
        residual = state.at_last(state.residual)
        steps = torch.zeros(len(tokens), dtype=torch.float64)
        for rank, rows in by_rank.items():
            found = vocabulary.steps_to_rank(residual[rows], demotions.at(rows), rank)
            steps[rows] = found.cpu()
        steps[steps.isinf()] = 0.0  # out of reach in this layer; a later one may do it
        if not bool(steps.any()):
            return None
        moved.add_((steps > 0).long())
        ff2 = decoder.ff2[layer]
        keys = state.at_last(state.ff2_input).float()
        readers, values = solve_jointly(
            keys,
            steps.to(keys.device),
            demotions.directions.to(keys.device),
            geometry.moments[layer].to(keys.device),
            geometry.damping[layer],
        )
        trial.add_low_rank(ff2.weight_name, ff2.weight, ff2.neuron_dim, readers, values)
        return (state.ff2_input.float() @ readers) @ values

    decoder.forward_through_layers(contexts, visit)
    found: list[int] = moved.tolist()
    return found


def solve_jointly(
    keys: Float[Tensor, "n f"],
    steps: Float[Tensor, " n"],
    directions: Float[Tensor, "n d"],
    moment: Float[Tensor, "f f"],
    damping: float,
) -> tuple[Float[Tensor, "f n"], Float[Tensor, "n d"]]:
    """Solves one layer: what listens to each key, and what it writes.

    Without damping `keys @ readers @ values` is exactly `-diag(steps) directions`.

    Returns:
        The two thin factors of the change of FF2 (in f x d orientation), float32.
    """
    factor = torch.linalg.cholesky(moment)
    readers = torch.cholesky_solve(keys.T, factor)
    overlaps = (keys.double() @ readers.double()).contiguous()
    own = overlaps.diagonal().clone()
    # Two equal contexts would make this singular: far below any damping in use, it only keeps the solve finite.
    overlaps.diagonal().add_(own * damping + own.mean() * 1e-7)
    values = -torch.linalg.solve(overlaps, steps[:, None].double() * directions.double())
    return readers, values.float()
