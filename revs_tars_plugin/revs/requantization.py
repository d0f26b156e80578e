"""An edit written into packed weights themselves, kept where every asked rank holds after the rounding."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from ..edits.edit_set import EditSet
from ..model.decoder import Decoder
from ..model.repacking import packed_again
from ..requests.reading import Secret, read_requests
from .outcomes import TargetOutcome, measure
from .revs_hparams import REVSHyperParams
from .revs_main import execute_revs

# By how much more is asked for, one after another, where rounding left a token short of its rank.
_FURTHER = (1.5, 2.0, 3.0)


@dataclass(frozen=True)
class Requantization:
    """What became of an edit in packed weights.

    Attributes:
        model: The model with the edit in its packed weights.
        outcomes: Those of the edit, measured on that model.
    """

    model: nn.Module
    outcomes: tuple[TargetOutcome, ...]

    @property
    def holds(self) -> bool:
        """Whether every token is where it was asked to be."""
        return all(outcome.reached for outcome in self.outcomes)


def requantized(
    model: nn.Module, tok: Any, requests: Sequence[Mapping[str, Any]], hparams: REVSHyperParams, edits: EditSet
) -> Requantization:
    """Writes an edit into the weights of a packed model and packs them again.

    Where that leaves a token short of its rank, a further edit is made, up to three times the rank; an edit of `aim:
    chance` is tried once. The model stays as it is.

    Args:
        model: The packed model that the edit was made for, without the edit.
        tok: Its tokenizer.
        requests: Those of the edit.
        hparams: Its settings.
        edits: The edit.

    Raises:
        InputError: When the model was not packed by transformers.
    """
    secrets = read_requests(requests, tok, **hparams.request_options)
    asked = [outcome for outcome in edits.outcomes if isinstance(outcome, TargetOutcome)]
    places = [(_secret_of(secrets, outcome).context(outcome.position), outcome.token) for outcome in asked]
    found = _packed_with(model, edits, asked, places)
    size = Decoder.of(model, hparams).lens.size
    margins = hparams.ranks(size)
    for share in _FURTHER if hparams.aim == "rank" else ():
        if found.holds:
            break
        rank = min(math.ceil(margins.residual_bottom_rank * share), size - 1)
        highest = max(margins.residual_top_rank, rank)
        further = replace(hparams, residual_bottom_rank=rank, residual_top_rank=highest)
        found = _packed_with(model, execute_revs(model, tok, requests, further), asked, places)
    return found


def _packed_with(
    model: nn.Module,
    edits: EditSet,
    asked: Sequence[TargetOutcome],
    places: Sequence[tuple[tuple[int, ...], int]],
) -> Requantization:
    packed = packed_again(model, lambda plain: edits.onto(plain).apply(plain))
    measured = measure(packed, places)
    return Requantization(
        packed,
        tuple(
            replace(outcome, rank_after=rank, probability_after=math.exp(value))
            for outcome, (rank, value) in zip(asked, measured, strict=True)
        ),
    )


def _secret_of(secrets: Sequence[Secret], outcome: TargetOutcome) -> Secret:
    """The secret that an outcome is of: a request may have several."""
    token = (outcome.token,)
    own = (secret for secret in secrets if secret.request == outcome.request)
    return next(secret for secret in own if secret.target_ids[outcome.position : outcome.position + 1] == token)
