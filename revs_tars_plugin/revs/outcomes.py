"""What became of each target token, measured on the model itself."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ..model.forward import batches_by_length, maximal, selected_logits
from ..model.processes import shared
from ..model.rank_steps import ranks

LOG = logging.getLogger(__name__)
# How much likelier than asked a token may be: one nat, half of what made-up secrets of one form differ by.
_NEARLY = math.e


@dataclass(frozen=True)
class EditedParts:
    """How much of the model one round edited for one target.

    Attributes:
        layers: The number of layers that were edited.
        neurons: The number of neurons; none with `localization: covariance`, which adds one rank-one change a layer.
    """

    layers: int
    neurons: int = 0


@dataclass(frozen=True)
class TargetOutcome:
    """What became of one target token; measured on the edited weights themselves, after the cast to their dtype.

    Attributes:
        request: Position of the request in the call.
        position: Position of the token in the target.
        token: Its id.
        asked_rank: The rank it must have at least; with `aim: chance` the one that it had.
        rank_before: Its rank after the prompt before the edit.
        rank_after: Its rank with all edits of the call in place.
        probability_before: Its probability before the edit.
        probability_after: Its probability with all edits of the call in place.
        layers: How many layers were edited for it, over all passes.
        neurons: The number of neurons; none with `localization: covariance`, which adds one rank-one change a layer.
        seconds: Time spent on it; where many are solved together, its share.
        asked_probability: With `aim: chance`, how likely it may be.
    """

    request: int
    position: int
    token: int
    asked_rank: int
    rank_before: int
    rank_after: int
    probability_before: float
    probability_after: float
    layers: int
    neurons: int
    seconds: float
    asked_probability: float | None = None

    @property
    def reached(self) -> bool:
        """Whether the token ended at or above the asked rank; or, nearly, at or below the asked probability."""
        if self.asked_probability is not None:
            return self.probability_after <= self.asked_probability * _NEARLY
        return self.rank_after >= self.asked_rank

    def counted_on(self, earlier: int) -> TargetOutcome:
        """Returns the same of a call that had so many requests before this one's."""
        return replace(self, request=self.request + earlier)

    def row(self) -> dict[str, Any]:
        """Returns its line of a table; the token is not named, since it tells the secret."""
        return {
            "secret": self.request,
            "token": self.position,
            **({"rank asked": self.asked_rank} if self.asked_probability is None else {}),
            "rank before": self.rank_before,
            "rank after": self.rank_after,
            **({"probability asked": self.asked_probability} if self.asked_probability is not None else {}),
            "probability before": self.probability_before,
            "probability after": self.probability_after,
            "reached": self.reached,
        }

    def edited_further(self, parts: EditedParts, seconds: float) -> TargetOutcome:
        """Returns the outcome with what one more round edited for it; its ranks are measured later."""
        return replace(
            self,
            layers=self.layers + parts.layers,
            neurons=self.neurons + parts.neurons,
            seconds=self.seconds + seconds,
        )


@torch.no_grad()
def measure(model: nn.Module, places: Sequence[tuple[tuple[int, ...], int]]) -> list[tuple[int, float]]:
    """Returns the rank and the log-probability of tokens as the model itself, with its weights as they stand, has them.

    Args:
        model: A causal language model.
        places: Contexts, each with the token behind it.
    """
    contexts, holders = maximal([context for context, _ in places])
    places_of = [list[int]() for _ in contexts]
    for index, holder in enumerate(holders):
        places_of[holder].append(index)

    def read(batch: Sequence[int]) -> dict[int, tuple[int, float]]:
        picks = [(row, len(places[index][0]) - 1) for row, holder in enumerate(batch) for index in places_of[holder]]
        chosen = [index for holder in batch for index in places_of[holder]]
        logits = selected_logits(model, [contexts[holder] for holder in batch], picks)
        tokens = torch.tensor([places[index][1] for index in chosen], device=logits.device)
        values = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(dim=-1)
        both = zip(ranks(logits, tokens).tolist(), values.tolist(), strict=True)
        return dict(zip(chosen, both, strict=True))

    measured: dict[int, tuple[int, float]] = {}
    for of_batch in shared(read, batches_by_length(contexts)):
        measured |= of_batch
    return [measured[index] for index in range(len(places))]


def report(outcomes: Sequence[TargetOutcome]) -> None:
    """Logs what was reached, without the secrets' text."""
    for outcome in outcomes:
        name = f"request {outcome.request}, target token {outcome.position}"
        if not outcome.reached and outcome.asked_probability is not None:
            LOG.warning(
                "REVS: %s ended at a probability of %.2g instead of %.2g; edit more layers, or lower soft_margin.",
                name,
                outcome.probability_after,
                outcome.asked_probability,
            )
        elif not outcome.reached:
            LOG.warning(
                "REVS: %s ended at rank %d instead of %d; edit more layers, or raise n_neurons or neuron_top_rank.",
                name,
                outcome.rank_after,
                outcome.asked_rank,
            )
        elif not outcome.layers:
            LOG.info("REVS: %s already had rank %d; nothing was changed for it.", name, outcome.rank_before)
