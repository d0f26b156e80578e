"""Demoting all targets of a call, round after round, until each has its rank on the model itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from tqdm.auto import tqdm

from ..decoder import Decoder
from ..trial_edits import TrialEdits
from .covariance import KeyGeometry, demote_jointly
from .outcomes import TargetOutcome, measure
from .revs_hparams import RankMargins, REVSHyperParams
from .sequential import demote
from .targets import Target

# How often tokens that rounding, or an edit they did not see, left short of their rank are edited again.
_REPAIRS = 6
# Targets that are solved together: bounds the extra memory.
_TOGETHER = 48


@dataclass
class Demoter:
    """Demotes targets by one method.

    Attributes:
        decoder: The model.
        targets: What to demote.
        margins: How far.
        hparams: How.
        geometry: What must not change; None where single neurons are edited.
        generator: For what is drawn at random.
        trial: Where the edits are written.
        progress: Whether to show a progress bar.
    """

    decoder: Decoder
    targets: Sequence[Target]
    margins: RankMargins
    hparams: REVSHyperParams
    geometry: KeyGeometry | None
    generator: torch.Generator
    trial: TrialEdits
    progress: bool = False

    def demote_all(self) -> list[TargetOutcome]:
        """Demotes every target that is short of its rank, then again those that something left short of it."""
        outcomes = self._before()
        asked = [outcome.asked_rank for outcome in outcomes]
        taking_part: set[int] = set()
        for round_ in range(1 + _REPAIRS):
            short = [index for index, outcome in enumerate(outcomes) if not outcome.reached]
            if not short:
                break
            taking_part.update(short)
            # Where targets are solved together all take part again, so that nobody moves those that are done.
            groups = [group for group in self._groups(sorted(taking_part)) if not set(group).isdisjoint(short)]
            with self._bar(len(groups), round_) as bar:
                for group in groups:
                    self._demote(group, asked, outcomes, not round_, bar.update)
            for index, (rank, probability) in enumerate(measure(self.decoder.model, self.targets)):
                outcomes[index] = replace(outcomes[index], rank_after=rank, probability_after=probability)
                missing = outcomes[index].asked_rank - rank
                if missing > 0:
                    # What the edit does at earlier positions, and rounding, are seen here only: ask for more.
                    more = max(2 * missing, outcomes[index].asked_rank // 50, 1)
                    asked[index] = min(asked[index] + more, self.decoder.vocabulary.size - 1)
        return outcomes

    def _bar(self, groups: int, round_: int) -> tqdm:
        """A bar that moves with every layer of every group; a later sweep may not be needed."""
        sweeps = 1 if self.geometry is None else self.hparams.sweeps
        return tqdm(
            desc="repairing" if round_ else "editing",
            total=groups * len(self.decoder.layers) * sweeps,
            unit="layer",
            disable=not self.progress,
        )

    def _before(self) -> list[TargetOutcome]:
        return [
            TargetOutcome(
                request=target.secret.index,
                position=target.position,
                token=target.token,
                asked_rank=self.margins.residual_bottom_rank,
                rank_before=rank,
                rank_after=rank,
                probability_before=probability,
                probability_after=probability,
                layers=0,
                neurons=0,
                seconds=0.0,
            )
            for target, (rank, probability) in zip(self.targets, measure(self.decoder.model, self.targets), strict=True)
        ]

    def _groups(self, indices: list[int]) -> list[list[int]]:
        """Those that are solved together."""
        size = _TOGETHER if self.geometry is not None and self.hparams.schedule == "joint" else 1
        return [indices[start : start + size] for start in range(0, len(indices), size)]

    def _demote(
        self,
        group: list[int],
        asked: Sequence[int],
        outcomes: list[TargetOutcome],
        everywhere: bool,
        advance: Callable[[], object],
    ) -> None:
        start = time.perf_counter()
        if self.geometry is None:
            (index,) = group
            target, margins = self.targets[index], replace(self.margins, residual_bottom_rank=asked[index])
            layers, neurons = demote(
                self.decoder, target.context, target.token, margins, self.hparams, self.generator, self.trial, advance
            )
            moved = {index: layers}
        else:
            moved, neurons = self._jointly(group, asked, self.geometry, everywhere, advance), 0
        seconds = (time.perf_counter() - start) / len(group)
        for index in group:
            old = outcomes[index]
            outcomes[index] = replace(
                old,
                layers=old.layers + moved[index],
                neurons=old.neurons + neurons,
                seconds=old.seconds + seconds,
            )

    def _jointly(
        self,
        group: list[int],
        asked: Sequence[int],
        geometry: KeyGeometry,
        everywhere: bool,
        advance: Callable[[], object],
    ) -> dict[int, int]:
        # A repair is small, and only a target's own context is measured: the others are spared the pass.
        rows = [
            (index, context)
            for index in group
            for context in (self.targets[index].contexts if everywhere else [self.targets[index].context])
        ]
        layers = demote_jointly(
            self.decoder,
            [context for _, context in rows],
            [self.targets[index].token for index, _ in rows],
            [asked[index] for index, _ in rows],
            geometry,
            self.trial,
            self.hparams.sweeps,
            advance,
        )
        # A target's own context comes first.
        return dict(zip([index for index, _ in reversed(rows)], reversed(layers), strict=True))
