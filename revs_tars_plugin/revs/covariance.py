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

from ..edits.trial import TrialEdits
from ..model.after_ff2 import AfterFF2, Branches, within_reach
from ..model.decoder import Decoder, LayerState
from ..model.forward import maximal
from ..model.logit_lens import Demotions, LogitLens
from ..model.processes import add_up, from_process, own_numbers, process_count
from ..model.rank_steps import ranks
from .factors import Factors, halfway, rest_of_way
from .outcomes import EditedParts
from .revs_hparams import REVSHyperParams
from .spared import SparedContexts
from .support_vectors import solve_by_support_vectors
from .targets import Goal

# Rows of V numbers that are worked on at once, and targets that are solved together: both bound the extra memory.
_ROWS = 64
_TOGETHER = 48
# Support vectors cost a product of all contexts, and tokens of one secret belong together.
_ALL_TOGETHER = 256


@dataclass(frozen=True)
class KeyGeometry:
    """Per layer, the matrix whose inverse makes keys.

    Attributes:
        factors: Layer by layer the lower Cholesky factor of what must not change, a weighted sum of second moments and
            the ridge: one of (f, f), of a mixture one for each expert.
        damping: rho for each layer, as a share of each key's own `a C^-1 a`.
        spared: Where tokens must go on being said, for `support_vectors`.
    """

    factors: Mapping[int, Factors]
    damping: Mapping[int, float]
    spared: SparedContexts | None = None


def layer_schedule(layers: Sequence[int], n_layers: int, first: float, last: float) -> dict[int, float]:
    """Returns a value per layer, geometric from the model's first layer to its last (linear where an end is 0).

    Args:
        layers: The layers that get one.
        n_layers: How many layers the model has.
        first: The value of the model's first layer.
        last: The value of its last layer.
    """
    share = {layer: layer / max(n_layers - 1, 1) for layer in layers}
    if first > 0 and last > 0:
        return {layer: first * (last / first) ** part for layer, part in share.items()}
    return {layer: first + (last - first) * part for layer, part in share.items()}


@dataclass(frozen=True)
class CovarianceLocalization:
    """Writes demotions as rank-one changes whose keys answer to their own contexts alone.

    Attributes:
        decoder: The model.
        geometry: What must not change.
        hparams: `sweeps` and `schedule` count here.
        trial: Where the edits are written.
    """

    decoder: Decoder
    geometry: KeyGeometry
    hparams: REVSHyperParams
    trial: TrialEdits

    @property
    def together(self) -> int:
        """How many targets are solved together at most."""
        return {"joint": _TOGETHER, "support_vectors": _ALL_TOGETHER}.get(self.hparams.schedule, 1)

    @property
    def passes(self) -> int:
        """How many sweeps are made at most."""
        return self.hparams.sweeps

    def demote(self, goals: Sequence[Goal], *, advance: Callable[[], object] = lambda: None) -> list[EditedParts]:
        """Edits every layer for all contexts of all goals together; see `Localization`.

        A sweep is one pass over all contexts; one that another begins with is read there. What the edit of a layer does
        at every position, the next layers see.
        """
        contexts = [context for goal in goals for context in goal.contexts]
        sequences, holders = maximal(contexts)
        places = [(row, len(context) - 1) for row, context in zip(holders, contexts, strict=True)]
        # Where processes work together each reads some of the sequences, and all solve for all contexts.
        own = range(len(sequences)) if len(sequences) < process_count() else own_numbers(len(sequences))
        sequences, sweep = [sequences[row] for row in own], _Sweep(self, goals, places, own)

        def visit(layer: int, state: LayerState) -> Tensor | None:
            advance()
            return sweep.visit(layer, state)

        for _ in range(self.passes):
            before = sweep.moved.clone()
            self.decoder.forward_through_layers(sequences, visit)
            if torch.equal(sweep.moved, before):
                break
        return [EditedParts(layers) for layers in sweep.layers_of_goals()]


class _Sweep:
    """What happens in each layer of each sweep.

    Attributes:
        moved: For each context, how many layers moved it.
    """

    def __init__(
        self,
        localization: CovarianceLocalization,
        goals: Sequence[Goal],
        places: Sequence[tuple[int, int]],
        own: Sequence[int],
    ) -> None:
        """Prepares the directions.

        Args:
            localization: What it belongs to.
            goals: What is asked.
            places: Where the last token of each context stands: the sequence, and the position in it.
            own: Which sequences this process's pass reads.
        """
        rows = {sequence: row for row, sequence in enumerate(own)}
        self._held = [context for context, (sequence, _) in enumerate(places) if sequence in rows]
        self._picks = [(rows[places[context][0]], places[context][1]) for context in self._held]
        self._decoder, self._geometry = localization.decoder, localization.geometry
        self._after_ff2 = self._decoder.after_ff2  # found before any pass is under way
        self._trial, self._hparams = localization.trial, localization.hparams
        self._sizes = [len(goal.contexts) for goal in goals]
        goal_of_context = [goal for goal in goals for _ in goal.contexts]
        self._ranks = torch.tensor([goal.rank for goal in goal_of_context])
        levels = [level for goal in goals for level in goal.levels or [torch.inf] * len(goal.contexts)]
        self._levels = torch.tensor(levels, dtype=torch.float64)
        # Many contexts ask for one token, whose direction is solved for once.
        directions = [(goal.token, goal.alternatives) for goal in goal_of_context]
        unique = {direction: row for row, direction in enumerate(sorted(set(directions)))}
        self._demotion_of_context = torch.tensor([unique[direction] for direction in directions])
        self._tokens = torch.tensor([token for token, _ in unique])
        self._alternatives = [alternatives for _, alternatives in unique]
        self._last: tuple[Tensor | None, Demotions] | None = None
        self.moved = torch.zeros(len(goal_of_context), dtype=torch.long)

    def layers_of_goals(self) -> list[int]:
        """Returns for each goal how many layers moved its own context, which comes first."""
        return [int(contexts[0]) for contexts in torch.split(self.moved, self._sizes)]

    def visit(self, layer: int, state: LayerState) -> Tensor | None:
        """Writes one layer's edit and returns what it adds to the layer's output."""
        after = self._after_ff2[layer]
        demotions = self._demotions(after.gain)
        residual = self._of_all(state, state.residual)
        branches = self._branches(after, residual, state, demotions.directions)
        steps = self._steps(self._decoder.lens, residual, demotions, branches)
        from_process(0, steps)  # what comes next depends on them
        if not bool(steps.any()):
            return None
        self.moved.add_((steps > 0).long())
        ff2 = self._decoder.ff2[layer]
        keys = self._of_all(state, state.ff2_input).float()
        directions = after.before(demotions.directions.to(keys.device))
        factors = self._geometry.factors[layer]
        if self._hparams.schedule == "support_vectors":
            readers, values = solve_by_support_vectors(
                keys=keys,
                steps=steps,
                groups=self._demotion_of_context,
                directions=directions,
                factors=factors,
                soft_margin=self._hparams.soft_margin,
                spared=self._spared_of(layer),
                spared_margin=self._hparams.retain_margin,
            )
        else:
            of_contexts = directions[self._demotion_of_context.to(keys.device)]
            readers, values = solve_jointly(
                keys, steps.to(keys.device), of_contexts, factors, self._geometry.damping[layer]
            )
        self._trial.add_low_rank(ff2, readers, values)
        return after.change(state.ff2_output, (state.ff2_input.float() @ readers) @ values)

    def _demotions(self, gain: Float[Tensor, " d"] | None) -> Demotions:
        """How tokens are pushed down by what is multiplied by a gain; without a ridge the gain makes no difference."""
        gain = gain if self._hparams.direction_ridge else None
        if self._last is None or self._last[0] is not gain:
            self._last = None  # behind a large vocabulary two of them are much
            self._last = (
                gain,
                self._decoder.lens.demotions(
                    self._tokens, self._alternatives, ridge=self._hparams.direction_ridge, gain=gain
                ),
            )
        return self._last[1]

    def _branches(
        self, after: AfterFF2, residual: Float[Tensor, "n d"], state: LayerState, directions: Float[Tensor, "k d"]
    ) -> Branches | None:
        """The contexts' vectors in two parts, where a norm stands behind FF2."""
        if after.epsilon is None:
            return None
        of_contexts = directions[self._demotion_of_context.to(directions.device)]
        return after.branches(residual, self._of_all(state, state.ff2_output), of_contexts)

    def _of_all(self, state: LayerState, values: Float[Tensor, "batch positions k"]) -> Float[Tensor, "n k"]:
        """Picks every context's last token, those that other processes read as well."""
        own = state.at(self._picks, values)
        if len(own) == len(self.moved):
            return own
        every = own.new_zeros(len(self.moved), own.shape[1])
        every[torch.tensor(self._held, device=own.device)] = own
        add_up(every)  # each row is another process's, or 0
        return every

    def _spared_of(self, layer: int) -> list[Tensor]:
        """For each direction what the layer is given where its token must go on being said."""
        spared = self._geometry.spared
        return [] if spared is None else [spared.before(layer, int(token)) for token in self._tokens]

    def _steps(
        self, lens: LogitLens, residual: Float[Tensor, "n d"], demotions: Demotions, branches: Branches | None
    ) -> Float[Tensor, " n"]:
        by_level = self._levels.isfinite().nonzero().flatten()
        if len(by_level) < len(residual):
            steps = self._steps_to_ranks(lens, residual, demotions, branches)
        else:
            steps = torch.zeros(len(residual))
        steps = steps.double()
        for rows in torch.split(by_level, _ROWS) if len(by_level) else ():
            steps[rows] = lens.steps_to_log_probability(
                residual[rows.to(residual.device)],
                demotions.at(self._demotion_of_context[rows].tolist()),
                self._levels[rows],
                None if branches is None else branches.at(rows),
            )
        return within_reach(steps, branches)

    def _steps_to_ranks(
        self, lens: LogitLens, residual: Float[Tensor, "n d"], demotions: Demotions, branches: Branches | None
    ) -> Float[Tensor, " n"]:
        steps = torch.zeros(len(residual), dtype=torch.float64)
        tokens = self._tokens[self._demotion_of_context]
        for rows in torch.split(torch.arange(len(residual)), _ROWS):
            hidden = residual[rows.to(residual.device)]
            logits = lens.logits(hidden)
            short = ranks(logits, tokens[rows].to(logits.device)).cpu() < self._ranks[rows]
            # In most layers hardly anybody is; the rest costs nothing more.
            for rank in sorted(set(self._ranks[rows][short].tolist())):
                chosen = (short & (self._ranks[rows] == rank)).nonzero().flatten()
                steps[rows[chosen]] = lens.steps_to_rank(
                    hidden[chosen.to(hidden.device)],
                    demotions.at(self._demotion_of_context[rows[chosen]].tolist()),
                    rank,
                    logits[chosen.to(logits.device)],
                    None if branches is None else branches.at(rows[chosen]),
                ).cpu()
        return steps


def solve_jointly(
    keys: Float[Tensor, "n f"],
    steps: Float[Tensor, " n"],
    directions: Float[Tensor, "n d"],
    factors: Factors,
    damping: float,
) -> tuple[Float[Tensor, "f n"], Float[Tensor, "n d"]]:
    """Solves one layer: what listens to each key, and what it writes.

    Without damping `keys @ readers @ values` is exactly `-diag(steps) directions`.

    Args:
        keys: What FF2 is given at the end of each context.
        steps: How far each context's output has to move, float64.
        directions: Along which direction it is moved down.
        factors: The lower Cholesky factor of the second moment of what must not change, block by block.
        damping: rho, as a share of each key's own `a C^-1 a`.

    Returns:
        The two thin factors of the change of FF2 (in f x d orientation), float32.
    """
    readers = rest_of_way(factors, halfway(factors, keys))
    overlaps = (keys.double() @ readers.double()).contiguous()
    lengths = overlaps.diagonal().clone()
    # Two equal contexts would make this singular: far below any damping in use, it only keeps the solve finite.
    overlaps.diagonal().add_(lengths * damping + lengths.mean() * 1e-7)
    values = -torch.linalg.solve(overlaps, steps[:, None].double() * directions.double())
    return readers, values.float()
