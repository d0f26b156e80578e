"""REVS: unlearning by rank editing in the vocabulary space (Ashuach, Tutek, Belinkov; arXiv 2406.09325)."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..decoder import Decoder, LayerState
from ..edits import EditSet, OriginalWeights, TrialEdits
from ..errors import InputError
from ..rank_steps import ranks
from ..requests import Secret, read_requests
from ..vocabulary import Demotion
from .neurons import choose_neurons, needed_step
from .revs_hparams import RankMargins, REVSHyperParams
from .token_selection import select_positions

LOG = logging.getLogger(__name__)

# How often tokens that later edits moved back above their rank are edited again.
_REPAIRS = 4


@dataclass(frozen=True)
class TargetOutcome:
    """What became of one target token; measured on the edited weights themselves, after the cast to their dtype.

    Attributes:
        request: Position of the request in the call.
        position: Position of the token in the target.
        token: Its id.
        asked_rank: The rank it must have at least.
        rank_before: Its rank after the prompt before the edit.
        rank_after: Its rank with all edits of the call in place.
        probability_before: Its probability before the edit.
        probability_after: Its probability with all edits of the call in place.
        layers: How many layers were edited for it.
        neurons: How many neurons, over all layers.
        seconds: Time spent on it.
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

    @property
    def reached(self) -> bool:
        """Whether the token ended at or above the asked rank."""
        return self.rank_after >= self.asked_rank


@dataclass(frozen=True)
class _Target:
    """One token to demote, and the context in which it must not come next."""

    secret: Secret
    position: int

    @property
    def token(self) -> int:
        return self.secret.target_ids[self.position]

    @property
    def context(self) -> tuple[int, ...]:
        return self.secret.context(self.position)


def apply_revs_to_model(
    model: nn.Module,
    tok: Any,
    requests: Sequence[Mapping[str, Any]],
    hparams: REVSHyperParams,
    copy: bool = False,
    return_orig_weights: bool = False,
    cache_template: str | None = None,
    keep_original_weight: bool = False,
    **kwargs: Any,
) -> tuple[nn.Module, Mapping[str, Tensor]]:
    """Edits a model so that it no longer gives the secrets of the requests; the host's contract.

    Args:
        model: A causal language model.
        tok: Its tokenizer.
        requests: The host's request dictionaries; see `read_requests` for what is forgotten.
        hparams: The settings.
        copy: Edit a copy and leave `model` alone.
        return_orig_weights: Return what restores the weights.
        cache_template: Taken for the host's sake; REVS caches nothing.
        keep_original_weight: Taken for the host's sake; `return_orig_weights` decides.
        **kwargs: Taken for the host's sake.

    Returns:
        The edited model, and the original weights by name (empty without `return_orig_weights`). The second has the
        `EditSet` in its attribute `edits`.

    Raises:
        InputError: As `execute_revs`; no weight has changed then.
    """
    if copy:
        model = deepcopy(model)
    edits = execute_revs(model, tok, requests, hparams)
    edits.apply(model)
    return model, OriginalWeights(model, edits, restores=return_orig_weights)


def execute_revs(
    model: nn.Module, tok: Any, requests: Sequence[Mapping[str, Any]], hparams: REVSHyperParams
) -> EditSet:
    """Computes the edit that demotes every chosen token of every secret; all weights are as before when it returns.

    Args:
        model: A causal language model; its weights are edited while the function runs and put back to the bit, also
            when it fails or is interrupted.
        tok: Its tokenizer.
        requests: The host's request dictionaries.
        hparams: The settings.

    Returns:
        The edit, with one `TargetOutcome` per edited token.

    Raises:
        InputError: When a request, a setting or the model cannot be used.
    """
    hparams.validate()
    decoder = Decoder(model, hparams)
    margins = hparams.ranks(decoder.vocabulary.size)
    if hparams.n_neurons > decoder.ff_width:
        raise InputError(f"n_neurons is {hparams.n_neurons}, but FF2 has only {decoder.ff_width} neurons.")
    secrets = read_requests(requests, tok, context_length=decoder.context_length)
    targets = [_Target(secret, position) for secret in secrets for position in select_positions(secret, tok, hparams)]
    before = _measure(decoder, targets)
    outcomes = [
        TargetOutcome(
            request=target.secret.index,
            position=target.position,
            token=target.token,
            asked_rank=margins.residual_bottom_rank,
            rank_before=rank,
            rank_after=rank,
            probability_before=probability,
            probability_after=probability,
            layers=0,
            neurons=0,
            seconds=0.0,
        )
        for target, (rank, probability) in zip(targets, before, strict=True)
    ]
    with TrialEdits() as trial:
        outcomes = _demote_all(decoder, targets, outcomes, margins, hparams, trial)
        edits = trial.collect("REVS", tuple(outcomes))
    _report(outcomes)
    return edits


def _demote_all(
    decoder: Decoder,
    targets: list[_Target],
    outcomes: list[TargetOutcome],
    margins: RankMargins,
    hparams: REVSHyperParams,
    trial: TrialEdits,
) -> list[TargetOutcome]:
    """Demotes target after target, then again those that rounding or a later edit left short of their rank."""
    asked = [margins] * len(targets)
    for round_ in range(1 + _REPAIRS):
        for index, (target, outcome) in enumerate(zip(targets, outcomes, strict=True)):
            if round_ and outcome.reached:
                continue
            start = time.perf_counter()
            layers, neurons = _demote(decoder, target, asked[index], hparams, trial)
            outcomes[index] = replace(
                outcome,
                layers=outcome.layers + layers,
                neurons=outcome.neurons + neurons,
                seconds=outcome.seconds + time.perf_counter() - start,
            )
        for index, (rank, probability) in enumerate(_measure(decoder, targets)):
            outcomes[index] = replace(outcomes[index], rank_after=rank, probability_after=probability)
            short = outcomes[index].asked_rank - rank
            if short > 0:
                # The lens and the forward pass differ by rounding; ask for a little more than what was missed.
                higher = min(asked[index].residual_bottom_rank + 2 * short, decoder.vocabulary.size - 1)
                asked[index] = replace(asked[index], residual_bottom_rank=higher)
        if all(outcome.reached for outcome in outcomes):
            break
    return outcomes


def _demote(
    decoder: Decoder, target: _Target, margins: RankMargins, hparams: REVSHyperParams, trial: TrialEdits
) -> tuple[int, int]:
    """Edits all layers for one token within one forward pass; returns how many layers and neurons were edited."""
    vocabulary = decoder.vocabulary
    demotion: Demotion = vocabulary.demotion(target.token)
    edited: list[int] = []

    def visit(layer: int, state: LayerState) -> Tensor | None:
        needed = needed_step(vocabulary, demotion, state.residual[0, -1], state.ff2_output[0, -1], margins)
        if needed == 0.0:
            return None
        ff2 = decoder.ff2[layer]
        chosen = choose_neurons(
            ff2,
            state.ff2_input[0, -1],
            vocabulary,
            demotion,
            margins,
            needed=needed,
            n_candidates=hparams.n_candidates,
            n_neurons=hparams.n_neurons,
        )
        if chosen is None:
            return None
        old = ff2.neurons(chosen.indices)
        new = (old.float() - chosen.steps[:, None] * demotion.direction.to(old.device)).to(old.dtype)
        trial.write_neurons(ff2.weight_name, ff2.weight, ff2.neuron_dim, chosen.indices, new)
        edited.append(len(chosen.indices))
        # What the cast neurons add to the layer's output, at every position.
        return state.ff2_input[..., chosen.indices].float() @ (new.float() - old.float())

    decoder.forward_through_layers(target.context, visit)
    return len(edited), sum(edited)


@torch.no_grad()
def _measure(decoder: Decoder, targets: list[_Target], batch_size: int = 8) -> list[tuple[int, float]]:
    """Returns rank and probability of every target as the model itself, with its weights as they stand, has them."""
    found = []
    for start in range(0, len(targets), batch_size):
        batch = targets[start : start + batch_size]
        logits = decoder.next_token_logits([target.context for target in batch])
        probabilities = logits.softmax(dim=-1)
        for row, target in enumerate(batch):
            rank = int(ranks(logits[row : row + 1], target.token))
            found.append((rank, float(probabilities[row, target.token])))
    return found


def _report(outcomes: list[TargetOutcome]) -> None:
    """Logs what was reached, without the secrets' text."""
    for outcome in outcomes:
        name = f"request {outcome.request}, target token {outcome.position}"
        if not outcome.reached:
            LOG.warning(
                "REVS: %s ended at rank %d instead of %d; raise n_neurons or neuron_top_rank, or edit more layers.",
                name,
                outcome.rank_after,
                outcome.asked_rank,
            )
        elif not outcome.neurons:
            LOG.info("REVS: %s already had rank %d; nothing was changed for it.", name, outcome.rank_before)
