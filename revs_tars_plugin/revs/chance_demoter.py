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
# Which share of a deviation is corrected, and how many nats at most in one round.
_CORRECTED = 0.7
_LARGEST_CORRECTION = 4.0


@dataclass
class ChanceDemoter:
    """Demotes targets to chance.

    A key that answers to all contexts of a token at least as much as is asked answers to most of them more. What comes
    of that is measured on each target's own prompt, and the edit is made anew with other levels.

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
        asked = [target.chance.log_probability for target in self.targets if target.chance is not None]
        for round_ in range(_ROUNDS if self.targets else 0):
            self.trial.start_over()
            outcomes = self._round(before, asked, f"editing, round {round_ + 1} of {_ROUNDS}")
            levels = self.levels.levels(self.decoder.model)
            for index, (target, outcome) in enumerate(zip(self.targets, outcomes, strict=True)):
                level = levels[target.secret.index][target.position]
                outcomes[index] = replace(outcome, asked_probability=math.exp(level))
                # A probability may vanish in float32.
                missing = level - math.log(max(outcome.probability_after, 1e-38))
                step = max(-_LARGEST_CORRECTION, min(_LARGEST_CORRECTION, _CORRECTED * missing))
                asked[index] = min(asked[index] + step, 0.0)
        return outcomes

    def _round(self, before: Sequence[TargetOutcome], asked: Sequence[float], label: str) -> list[TargetOutcome]:
        outcomes = list(before)
        groups = in_groups(list(range(len(self.targets))), self.localization)
        with layers_bar(self.decoder, self.localization, len(groups), label, self.progress) as bar:
            for group in groups:
                goals = [self.targets[index].asked(asked[index]).goal(0, everywhere=True) for index in group]
                start = time.perf_counter()
                edited = self.localization.demote(goals, advance=bar.update)
                seconds = (time.perf_counter() - start) / len(group)
                for index, parts in zip(group, edited, strict=True):
                    outcomes[index] = outcomes[index].edited_further(parts, seconds)
        for index, (rank, probability) in enumerate(measure(self.decoder.model, self.targets)):
            outcomes[index] = replace(outcomes[index], rank_after=rank, probability_after=probability)
        return outcomes
