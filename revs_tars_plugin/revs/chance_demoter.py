"""Demoting all targets of a call to chance: not as far as it goes, but as far as a secret never learned would be."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..edits.trial import TrialEdits
from ..model.decoder import Decoder
from .chance import ChanceLevels
from .demoter import Localization, layers_bar, outcomes_before
from .outcomes import TargetOutcome, measure
from .read_texts import NEVER
from .targets import Target

# How often everything is edited at most; each time what the last one overshot is asked for less, what it left for more.
_MOST_ROUNDS = 4
# Mean deviation of the targets in their own contexts, in nats, that is good enough.
_CLOSE_ENOUGH = 1.25
# Which share of a deviation is corrected after the first round, and after all others; and of how many nats at most.
_CORRECTED = (1.0, 0.7)
_LARGEST_CORRECTION = 6.0
# How much longer the longest of a group may be than its shortest, and from how many targets on that matters.
_LIKE_LENGTH, _WORTH_A_PASS = 2, 64


@dataclass
class ChanceDemoter:
    """Demotes targets to chance.

    A key that answers to all contexts of a token at least as much as is asked answers to most of them more. What comes
    of that is measured in every context, and the edit is made anew with other levels.

    Attributes:
        decoder: The model.
        targets: What to demote, each with its `chance`.
        levels: Where chance is; read anew after every round.
        localization: Where the demotions are written.
        trial: Where the edits are written; begun anew with every round.
        progress: Whether to show a progress bar.
    """

    decoder: Decoder
    targets: Sequence[Target]
    levels: ChanceLevels
    localization: Localization
    trial: TrialEdits
    progress: bool = False

    def demote_all(self) -> list[TargetOutcome]:
        """Demotes every target in all of its contexts, round after round until most are where they are asked to be."""
        outcomes = outcomes_before(self.decoder.model, self.targets, 0)
        if not self.targets:
            return outcomes
        asked = [[_level(target)] * len(target.contexts) for target in self.targets]
        best, least = asked, math.inf
        for round_ in range(_MOST_ROUNDS):
            outcomes, levels = self._round(outcomes, asked, f"editing, round {round_ + 1}")
            deviation = _deviation(outcomes)
            if deviation < least:
                best, least = asked, deviation
            if deviation < _CLOSE_ENOUGH or round_ + 1 == _MOST_ROUNDS:
                break
            share = _CORRECTED[min(round_, len(_CORRECTED) - 1)]
            measured = self._measured([target.contexts for target in self.targets])
            asked = [
                [
                    min(asked_before + share * _limited(level - value), 0.0)
                    for asked_before, (_, value) in zip(of_target, values, strict=True)
                ]
                for of_target, values, level in zip(asked, measured, levels, strict=True)
            ]
        if best is not asked:
            outcomes, _ = self._round(outcomes, best, "editing, the best round again")
        return outcomes

    def _round(
        self, outcomes: Sequence[TargetOutcome], asked: Sequence[list[float]], label: str
    ) -> tuple[list[TargetOutcome], list[float]]:
        """Edits everything anew; returns what came of it, and where chance is for each target now."""
        self.trial.start_over()
        # What was edited in earlier rounds is gone, the time that they took is not.
        edited = [replace(outcome, layers=0, neurons=0) for outcome in outcomes]
        groups = groups_of_like_length(self.targets, self.localization.together)
        with layers_bar(self.decoder, self.localization, len(groups), label, self.progress) as bar:
            for group in groups:
                goals = [self.targets[index].goal_by_levels(asked[index]) for index in group]
                start = time.perf_counter()
                parts_of_group = self.localization.demote(goals, advance=bar.update)
                seconds = (time.perf_counter() - start) / len(group)
                for index, parts in zip(group, parts_of_group, strict=True):
                    edited[index] = edited[index].edited_further(parts, seconds)
        of_secrets = self.levels.levels(self.decoder.model)
        levels = [of_secrets[target.secret.index][target.position] for target in self.targets]
        for index, [(rank, value)] in enumerate(self._measured([(target.context,) for target in self.targets])):
            edited[index] = replace(
                edited[index],
                rank_after=rank,
                probability_after=math.exp(value),
                asked_probability=math.exp(levels[index]),
            )
        return edited, levels

    def _measured(self, contexts: Sequence[Sequence[tuple[int, ...]]]) -> list[list[tuple[int, float]]]:
        """Rank and log-probability of every target in contexts of its own."""
        places = [(each, target.token) for target, own in zip(self.targets, contexts, strict=True) for each in own]
        measured = iter(measure(self.decoder.model, places))
        return [[next(measured) for _ in own] for own in contexts]


def groups_of_like_length(targets: Sequence[Target], most: int) -> list[list[int]]:
    """Returns which targets are solved together: of secrets of like length, since a pass is as long as its longest.

    Args:
        targets: The targets.
        most: How many a group has at most.
    """
    lengths = [len(target.secret.prompt_ids) + len(target.secret.target_ids) for target in targets]
    groups: list[list[int]] = []
    for index in sorted(range(len(targets)), key=lambda index: (lengths[index], index)):
        alike = groups and lengths[index] <= _LIKE_LENGTH * lengths[groups[-1][0]]
        # A few by themselves are not worth a pass of their own.
        if groups and len(groups[-1]) < (most if alike else min(most, _WORTH_A_PASS)):
            groups[-1].append(index)
        else:
            groups.append([index])
    return [sorted(group) for group in groups]


def _level(target: Target) -> float:
    assert target.chance is not None
    return target.chance.log_probability


def _deviation(outcomes: Sequence[TargetOutcome]) -> float:
    """How far targets are from what is asked of them in their own contexts, to either side: the mean in nats."""
    return sum(
        abs(math.log(max(outcome.probability_after, NEVER)) - math.log(max(outcome.asked_probability or 0.0, NEVER)))
        for outcome in outcomes
    ) / len(outcomes)


def _limited(deviation: float) -> float:
    return max(-_LARGEST_CORRECTION, min(_LARGEST_CORRECTION, deviation))
