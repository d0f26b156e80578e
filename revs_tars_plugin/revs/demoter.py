"""Demoting all targets of a call, round after round, until each has its rank on the model itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from torch import nn
from tqdm.auto import tqdm

from ..model.decoder import Decoder
from .outcomes import EditedParts, TargetOutcome, measure
from .targets import Goal, Target

# How often a token that rounding, or an edit it did not see, left short of its rank is edited again; and how many
# rounds there are at most, where it is another one every time.
_REPAIRS, _MOST_ROUNDS = 6, 20
# Of several groups that are solved and repaired each token is asked to stand this share of its rank further down.
_SPARE = 0.01


class Localization(Protocol):
    """Where a demotion is written: one of the two values of `localization`."""

    @property
    def together(self) -> int:
        """How many targets are solved together at most."""
        ...

    @property
    def passes(self) -> int:
        """How many passes over the layers one call makes at most."""
        ...

    def demote(self, goals: Sequence[Goal], *, advance: Callable[[], object] = lambda: None) -> list[EditedParts]:
        """Edits the model so that each token gets its rank; returns how much was edited for each.

        Args:
            goals: What is asked for, at most `together` of them.
            advance: Called at each layer of each pass.
        """
        ...


@dataclass
class Demoter:
    """Demotes targets.

    Attributes:
        decoder: The model.
        targets: What to demote.
        rank: The rank each must have at least.
        localization: Where the demotions are written.
        progress: Whether to show a progress bar.
    """

    decoder: Decoder
    targets: Sequence[Target]
    rank: int
    localization: Localization
    progress: bool = False

    def demote_all(self) -> list[TargetOutcome]:
        """Demotes every target that is short of its rank, then again those that something left short of it."""
        outcomes = outcomes_before(self.decoder.model, self.targets, self.rank)
        ranks = [self.rank] * len(outcomes)
        taking_part: set[int] = set()
        tried = [0] * len(outcomes)

        def short_of_rank() -> list[int]:
            wanting = (index for index, outcome in enumerate(outcomes) if not outcome.reached)
            return [index for index in wanting if tried[index] <= _REPAIRS]

        for round_ in range(_MOST_ROUNDS):
            short, repairing = short_of_rank(), round_ > 0
            if not short:
                break
            for index in short:
                tried[index] += 1
            taking_part.update(short)
            # Where targets are solved together all take part again, so that nobody moves those that are done.
            groups = [group for group in self._groups(sorted(taking_part)) if not set(group).isdisjoint(short)]
            # Groups move each other's tokens a little: a few places more in each, or they take turns for long.
            several = 1 < self.localization.together < len(taking_part)
            spare = math.floor(_SPARE * self.rank) if repairing and several else 0
            with self._bar(len(groups), repairing) as bar:
                for group in groups:
                    # A repair is small, and only a target's own context is measured: the others are spared the pass.
                    asked = [min(ranks[index] + spare, self.decoder.lens.size - 1) for index in group]
                    goals = [
                        self.targets[index].goal(rank, everywhere=not repairing)
                        for index, rank in zip(group, asked, strict=True)
                    ]
                    start = time.perf_counter()
                    edited = self.localization.demote(goals, advance=bar.update)
                    seconds = (time.perf_counter() - start) / len(group)
                    for index, parts in zip(group, edited, strict=True):
                        outcomes[index] = outcomes[index].edited_further(parts, seconds)
            # A repair hardly moves the others: they are measured when those that are edited have what they need.
            edited_now = sorted({index for group in groups for index in group})
            self._measure(edited_now, outcomes, ranks)
            if round_ == _MOST_ROUNDS - 1 or not short_of_rank():
                rest = sorted(set(range(len(outcomes))) - set(edited_now))
                self._measure(rest, outcomes, ranks)
        return outcomes

    def _measure(self, indices: Sequence[int], outcomes: list[TargetOutcome], ranks: list[int]) -> None:
        """Notes where these tokens stand now, and asks for more where that is not enough."""
        chosen = [(self.targets[index].context, self.targets[index].token) for index in indices]
        for index, (rank, value) in zip(indices, measure(self.decoder.model, chosen), strict=True):
            outcomes[index] = replace(outcomes[index], rank_after=rank, probability_after=math.exp(value))
            missing = outcomes[index].asked_rank - rank
            if missing > 0:
                # What the edit does at earlier positions, and rounding, are seen here only: ask for more.
                more = max(2 * missing, outcomes[index].asked_rank // 50, 1)
                ranks[index] = min(ranks[index] + more, self.decoder.lens.size - 1)

    def _bar(self, groups: int, repairing: bool) -> tqdm:
        """A later pass may not be needed."""
        return layers_bar(
            self.decoder, self.localization, groups, "repairing" if repairing else "editing", self.progress
        )

    def _groups(self, indices: list[int]) -> list[list[int]]:
        """Those that are solved together."""
        size = self.localization.together
        return [indices[start : start + size] for start in range(0, len(indices), size)]


def layers_bar(decoder: Decoder, localization: Localization, groups: int, label: str, progress: bool) -> tqdm:
    """Returns a bar that moves with every layer of every group."""
    total = groups * len(decoder.layers) * localization.passes
    return tqdm(desc=label, total=total, unit="layer", disable=not progress)


def outcomes_before(model: nn.Module, targets: Sequence[Target], rank: int) -> list[TargetOutcome]:
    """Returns an outcome for each target as if nothing were edited."""
    return [
        TargetOutcome(
            request=target.secret.request,
            position=target.position,
            token=target.token,
            asked_rank=rank if target.chance is None else rank_before,
            rank_before=rank_before,
            rank_after=rank_before,
            probability_before=math.exp(value),
            probability_after=math.exp(value),
            layers=0,
            neurons=0,
            seconds=0.0,
            asked_probability=None if target.chance is None else math.exp(target.chance.log_probability),
        )
        for target, (rank_before, value) in zip(
            targets, measure(model, [(target.context, target.token) for target in targets]), strict=True
        )
    ]
