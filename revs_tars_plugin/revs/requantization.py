"""An edit written into packed weights themselves, kept where every asked rank holds after the rounding."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
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
        edits: The edit that is in them: the given one, or one that goes further.
        outcomes: What was asked of the given edit, measured on the model as it was written.
    """

    edits: EditSet
    outcomes: tuple[TargetOutcome, ...]

    @property
    def holds(self) -> bool:
        """Whether every token is where it was asked to be."""
        return all(outcome.reached for outcome in self.outcomes)


def requantize(
    model: nn.Module,
    tok: Any,
    requests: Sequence[Mapping[str, Any]],
    hparams: REVSHyperParams,
    edits: EditSet,
    *,
    folder: Path,
) -> Requantization:
    """Writes a packed model with an edit in its weights, packed again, into a folder, if every rank holds there.

    Where that leaves a token short of its rank, an edit that goes further is tried, up to three times the rank; one of
    `aim: chance` is tried once. The model stays as it is.

    Args:
        model: The packed model that the edit was made for, without the edit.
        tok: Its tokenizer.
        requests: Those of the edit.
        hparams: Its settings.
        edits: The edit.
        folder: Where to; what stands there is replaced, and stays where a rank does not hold.

    Raises:
        InputError: When the model cannot be packed again; see `packed_again`.
    """
    secrets = read_requests(requests, tok, **hparams.request_options)
    asked = [outcome for outcome in edits.outcomes if isinstance(outcome, TargetOutcome)]
    places = [_contexts(secrets, outcome) for outcome in asked]
    size = Decoder.of(model, hparams).lens.size
    margins = hparams.ranks(size)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for share in (1.0, *_FURTHER) if hparams.aim == "rank" else (1.0,):
        if share > 1:
            rank = min(math.ceil(margins.residual_bottom_rank * share), size - 1)
            highest = max(margins.residual_top_rank, rank)
            further = replace(hparams, residual_bottom_rank=rank, residual_top_rank=highest)
            edits = execute_revs(model, tok, requests, further)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as unfinished:
            written = Path(unfinished) / folder.name
            found = Requantization(edits, _packed_with(model, edits, asked, places, written))
            if found.holds:
                tok.save_pretrained(written)
                if folder.exists():
                    shutil.rmtree(folder)
                written.replace(folder)
                break
    return found


def _packed_with(
    model: nn.Module,
    edits: EditSet,
    asked: Sequence[TargetOutcome],
    places: Sequence[Sequence[tuple[int, ...]]],
    folder: Path,
) -> tuple[TargetOutcome, ...]:
    packed = packed_again(model, folder, lambda plain: edits.onto(plain).apply(plain))
    pairs = [(context, outcome.token) for outcome, own in zip(asked, places, strict=True) for context in own]
    measured = iter(measure(packed, pairs))
    outcomes = []
    for outcome, own in zip(asked, places, strict=True):
        ranks, values = zip(*(next(measured) for _ in own), strict=True)
        outcomes.append(replace(outcome, rank_after=min(ranks), probability_after=math.exp(max(values))))
    return tuple(outcomes)


def _contexts(secrets: Sequence[Secret], outcome: TargetOutcome) -> list[tuple[int, ...]]:
    """Where an outcome's token was demoted; of a request whose secrets share it, in all of them."""
    token = (outcome.token,)
    own = (secret for secret in secrets if secret.request == outcome.request)
    return [
        secret.context(outcome.position)
        for secret in own
        if secret.target_ids[outcome.position : outcome.position + 1] == token
    ]
