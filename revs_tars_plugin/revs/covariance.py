"""`localization: covariance`: the exact step, written with the key that ROME and MEMIT use, many secrets at a time.

The value direction and the step are those of REVS; what differs is who listens to them. The key `u = C^-1 a` (`C` the
second moment of FF2's inputs over text that must not change) answers to the secret's own context and hardly to others.
All secrets of a batch are solved together: `dW = -Y D`, `Y = C^-1 A^T`, `(A Y + rho) D = diag(s) Q`, so that each
context triggers its own direction and nobody else's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..decoder import Decoder, LayerState
from ..prefixes import Prefixes
from ..rank_steps import ranks
from ..trial_edits import TrialEdits
from ..vocabulary import Vocabulary

# Rows of V numbers that are worked on at once: bounds the extra memory.
_ROWS = 64


@dataclass(frozen=True)
class KeyGeometry:
    """Per layer, the matrix whose inverse makes keys.

    Attributes:
        factors: Layer by layer the lower Cholesky factor, (f, f), of what must not change: a weighted sum of second
            moments and the ridge.
        damping: rho for each layer, as a share of each key's own `a C^-1 a`.
    """

    factors: Mapping[int, Float[Tensor, "f f"]]
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
    sweeps: int,
    advance: Callable[[], object] = lambda: None,
) -> list[int]:
    """Edits every layer for all contexts together.

    The tokens in front of each context's last one go through the model once, as it stands; a sweep takes only the last
    tokens through it. What the edit does at the positions before is therefore seen by the caller's measurement, not
    here. Where a model does not let its keys and values be kept, a sweep is a pass over everything.

    Args:
        decoder: The model.
        contexts: The token ids in front of each target.
        tokens: The targets.
        asked_ranks: The rank each must have in every edited layer's residual.
        geometry: What must not change.
        trial: Where the edits are written.
        sweeps: How often at most; none is made once all have their rank.
        advance: Called at each layer of each sweep.

    Returns:
        For each context, how many layers moved it.
    """
    prefixes = Prefixes.read(decoder.model, contexts)
    moved = torch.zeros(len(tokens), dtype=torch.long)
    sweep = _Sweep(decoder, tokens, asked_ranks, geometry, trial)

    def visit(layer: int, state: LayerState) -> Tensor | None:
        advance()
        return sweep.visit(layer, state, moved)

    for _ in range(sweeps):
        before = moved.clone()
        if prefixes is None:
            decoder.forward_through_layers(contexts, visit)
        else:
            with decoder.visiting(visit, prefixes.last >= 0):
                prefixes.run(decoder.model)
        if torch.equal(moved, before):
            break
    found: list[int] = moved.tolist()
    return found


class _Sweep:
    """What happens in each layer of each sweep."""

    def __init__(
        self,
        decoder: Decoder,
        tokens: Sequence[int],
        asked_ranks: Sequence[int],
        geometry: KeyGeometry,
        trial: TrialEdits,
    ) -> None:
        self._decoder, self._geometry, self._trial = decoder, geometry, trial
        self._asked = torch.tensor(list(asked_ranks))
        # Many contexts ask for one token, whose direction is solved for once.
        unique = sorted(set(tokens))
        self._of = torch.tensor([unique.index(token) for token in tokens])
        self._demotions = decoder.vocabulary.demotions(torch.tensor(unique))

    def visit(self, layer: int, state: LayerState, moved: Tensor) -> Tensor | None:
        """Writes one layer's edit and returns what it adds to the layer's output."""
        steps = self._steps(self._decoder.vocabulary, state.at_last(state.residual))
        if not bool(steps.any()):
            return None
        moved.add_((steps > 0).long())
        ff2 = self._decoder.ff2[layer]
        keys = state.at_last(state.ff2_input).float()
        directions = self._demotions.directions[self._of.to(self._demotions.directions.device)]
        readers, values = solve_jointly(
            keys,
            steps.to(keys.device),
            directions.to(keys.device),
            self._geometry.factors[layer].to(keys.device),
            self._geometry.damping[layer],
        )
        self._trial.add_low_rank(ff2.weight_name, ff2.weight, ff2.neuron_dim, readers, values, ff2.transposed)
        return (state.ff2_input.float() @ readers) @ values

    def _steps(self, vocabulary: Vocabulary, residual: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        steps = torch.zeros(len(residual), dtype=torch.float64)
        tokens = self._demotions.tokens.cpu()[self._of]
        for rows in torch.split(torch.arange(len(residual)), _ROWS):
            hidden = residual[rows.to(residual.device)]
            logits = vocabulary.logits(hidden)
            short = ranks(logits, tokens[rows].to(logits.device)).cpu() < self._asked[rows]
            # In most layers hardly anybody is; the rest costs nothing more.
            for rank in sorted(set(self._asked[rows][short].tolist())):
                chosen = (short & (self._asked[rows] == rank)).nonzero().flatten()
                steps[rows[chosen]] = vocabulary.steps_to_rank(
                    hidden[chosen.to(hidden.device)],
                    self._demotions.at(self._of[rows[chosen]].tolist()),
                    rank,
                    logits[chosen.to(logits.device)],
                ).cpu()
        steps[steps.isinf()] = 0.0  # out of reach in this layer; a later one may do it
        return steps


def solve_jointly(
    keys: Float[Tensor, "n f"],
    steps: Float[Tensor, " n"],
    directions: Float[Tensor, "n d"],
    factor: Float[Tensor, "f f"],
    damping: float,
) -> tuple[Float[Tensor, "f n"], Float[Tensor, "n d"]]:
    """Solves one layer: what listens to each key, and what it writes.

    `factor` is the lower Cholesky factor of the second moment. Without damping `keys @ readers @ values` is exactly
    `-diag(steps) directions`.

    Returns:
        The two thin factors of the change of FF2 (in f x d orientation), float32.
    """
    # Not cholesky_solve, which copies the factor.
    halfway = torch.linalg.solve_triangular(factor, keys.T, upper=False)
    readers = torch.linalg.solve_triangular(factor.mT, halfway, upper=True)
    overlaps = (keys.double() @ readers.double()).contiguous()
    own = overlaps.diagonal().clone()
    # Two equal contexts would make this singular: far below any damping in use, it only keeps the solve finite.
    overlaps.diagonal().add_(own * damping + own.mean() * 1e-7)
    values = -torch.linalg.solve(overlaps, steps[:, None].double() * directions.double())
    return readers, values.float()
