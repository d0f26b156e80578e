"""Demoting all targets of a call to chance: not as far as it goes, but as far as a secret never learned would be."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..edits.trial import TrialEdits
from ..model.decoder import Decoder
from .chance import ChanceLevels
from .demoter import Localization, in_groups, layers_bar, outcomes_before
from .outcomes import TargetOutcome, measure
from .targets import Target

# How often everything is edited; each time what the last one overshot is asked for less, what it left for more.
_ROUNDS = 2
# How many nats of a deviation are corrected at most in one round.
_LARGEST_CORRECTION = 6.0


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
        """Demotes every target in all of its contexts, round after round."""
        before = outcomes_before(self.decoder.model, self.targets, 0)
        outcomes = before
        asked = [[_level(target)] * len(target.contexts) for target in self.targets]
        for round_ in range(_ROUNDS if self.targets else 0):
            self.trial.start_over()
            outcomes = self._round(before, asked, f"editing, round {round_ + 1} of {_ROUNDS}")
            levels = self.levels.levels(self.decoder.model)
            # After the last round nothing is corrected any more, and each target's own context is enough.
            everywhere = round_ + 1 < _ROUNDS
            for index, (target, measured) in enumerate(zip(self.targets, self._measured(everywhere), strict=True)):
                level = levels[target.secret.index][target.position]
                rank, value = measured[0]
                outcomes[index] = replace(
                    outcomes[index],
                    rank_after=rank,
                    probability_after=math.exp(value),
                    asked_probability=math.exp(level),
                )
                if everywhere:
                    asked[index] = [
                        min(before_ + _correction(level - value), 0.0)
                        for before_, (_, value) in zip(asked[index], measured, strict=True)
                    ]
        return outcomes

    def _round(self, before: Sequence[TargetOutcome], asked: Sequence[list[float]], label: str) -> list[TargetOutcome]:
        outcomes = list(before)
        groups = in_groups(list(range(len(self.targets))), self.localization)
        with layers_bar(self.decoder, self.localization, len(groups), label, self.progress) as bar:
            for group in groups:
                goals = [self.targets[index].goal_by_levels(asked[index]) for index in group]
                start = time.perf_counter()
                edited = self.localization.demote(goals, advance=bar.update)
                seconds = (time.perf_counter() - start) / len(group)
                for index, parts in zip(group, edited, strict=True):
                    outcomes[index] = outcomes[index].edited_further(parts, seconds)
        return outcomes

    def _measured(self, everywhere: bool) -> list[list[tuple[int, float]]]:
        """Rank and log-probability of every target in its own context, which comes first, or in all of them."""
        contexts = [target.contexts if everywhere else (target.context,) for target in self.targets]
        places = [(each, target.token) for target, own in zip(self.targets, contexts, strict=True) for each in own]
        measured = iter(measure(self.decoder.model, places))
        return [[next(measured) for _ in own] for own in contexts]


def _level(target: Target) -> float:
    assert target.chance is not None
    return target.chance.log_probability


def _correction(missing: float) -> float:
    return max(-_LARGEST_CORRECTION, min(_LARGEST_CORRECTION, missing))
