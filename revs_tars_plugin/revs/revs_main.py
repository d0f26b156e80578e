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

from ..decoder import Decoder, next_token_logits
from ..edits import EditSet, OriginalWeights
from ..errors import InputError
from ..rank_steps import ranks
from ..requests import Secret, read_requests
from ..trial_edits import TrialEdits
from .contexts import other_contexts
from .covariance import KeyGeometry, demote_jointly
from .geometry import key_geometry
from .revs_hparams import RankMargins, REVSHyperParams
from .sequential import demote
from .siblings import make_siblings
from .token_selection import select_positions, surprises

LOG = logging.getLogger(__name__)

# How often tokens that rounding or another edit left short of their rank are edited again.
_REPAIRS = 4
# Targets that are solved together, and measured together: bounds the extra memory.
_JOINT, _MEASURED = 256, 16


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
        layers: How many layers were edited for it, over all passes.
        neurons: How many neurons; none with `localization: covariance`, which adds one rank-one change a layer.
        seconds: Time spent on it; where many are solved together, its share.
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
    """One token to demote, and the contexts in which it must not come next; the first is measured."""

    secret: Secret
    position: int
    elsewhere: tuple[tuple[int, ...], ...] = ()

    @property
    def token(self) -> int:
        return self.secret.target_ids[self.position]

    @property
    def context(self) -> tuple[int, ...]:
        return self.secret.context(self.position)

    @property
    def contexts(self) -> tuple[tuple[int, ...], ...]:
        return (self.context, *self.elsewhere)


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
        requests: The host's request dictionaries. With `localization: covariance` they may also name
            "sibling_prompts" and "retain_texts", lists of texts.
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
    secrets = read_requests(
        requests, tok, context_length=decoder.context_length, max_prompt_length=hparams.max_prompt_length
    )
    generator = torch.Generator().manual_seed(hparams.seed)
    by_covariance = hparams.localization == "covariance"
    by_siblings = hparams.token_method in ("specific", "chained")
    siblings = make_siblings(secrets, hparams.siblings if by_covariance or by_siblings else 0, hparams.seed)
    surprise = surprises(model, tok, secrets, siblings) if by_siblings else {}
    targets = [
        _Target(secret, position, other_contexts(secret, position, siblings[secret.index], tok, hparams))
        for secret in secrets
        for position in select_positions(secret, tok, hparams, generator, surprise.get(secret.index))
    ]
    geometry = key_geometry(decoder, tok, secrets, siblings, hparams) if by_covariance else None
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
        for target, (rank, probability) in zip(targets, _measure(model, targets), strict=True)
    ]
    with TrialEdits() as trial:
        demoter = _Demoter(decoder, targets, margins, hparams, geometry, generator, trial)
        outcomes = demoter.demote_all(outcomes)
        edits = trial.collect("REVS", tuple(outcomes))
    _report(outcomes)
    return edits


@dataclass
class _Demoter:
    """Demotes targets round after round until all have their rank."""

    decoder: Decoder
    targets: list[_Target]
    margins: RankMargins
    hparams: REVSHyperParams
    geometry: KeyGeometry | None
    generator: torch.Generator
    trial: TrialEdits

    def demote_all(self, outcomes: list[TargetOutcome]) -> list[TargetOutcome]:
        """Demotes all targets, then again those that rounding or another edit left short of their rank."""
        asked = [self.margins.residual_bottom_rank] * len(self.targets)
        joint = self.geometry is not None and self.hparams.schedule == "joint"
        at_least = self.hparams.sweeps if joint else 1
        for round_ in range(at_least + _REPAIRS):
            short = [index for index, outcome in enumerate(outcomes) if not outcome.reached]
            if not short and round_ >= at_least:
                break
            if joint:
                # All again: those that have their rank take part with a step of 0, so that nobody moves them.
                for start in range(0, len(self.targets), _JOINT):
                    self._jointly(range(start, min(start + _JOINT, len(self.targets))), asked, outcomes)
            else:
                for index in range(len(self.targets)) if round_ == 0 else short:
                    self._one(index, asked[index], outcomes)
            if round_ + 1 < at_least:
                continue
            for index, (rank, probability) in enumerate(_measure(self.decoder.model, self.targets)):
                outcomes[index] = replace(outcomes[index], rank_after=rank, probability_after=probability)
                missing = outcomes[index].asked_rank - rank
                if missing > 0:
                    # The lens and the forward pass differ by rounding, and other edits move it: ask for more than that.
                    more = max(2 * missing, outcomes[index].asked_rank // 50, 1)
                    asked[index] = min(asked[index] + more, self.decoder.vocabulary.size - 1)
        return outcomes

    def _one(self, index: int, asked_rank: int, outcomes: list[TargetOutcome]) -> None:
        if self.geometry is not None:
            self._jointly([index], {index: asked_rank}, outcomes)
            return
        target, start = self.targets[index], time.perf_counter()
        margins = replace(self.margins, residual_bottom_rank=asked_rank)
        layers, neurons = demote(
            self.decoder, target.context, target.token, margins, self.hparams, self.generator, self.trial
        )
        _spent(outcomes, index, layers, neurons, time.perf_counter() - start)

    def _jointly(
        self, indices: Sequence[int], asked: Mapping[int, int] | Sequence[int], outcomes: list[TargetOutcome]
    ) -> None:
        assert self.geometry is not None
        start = time.perf_counter()
        rows = [(index, context) for index in indices for context in self.targets[index].contexts]
        layers = demote_jointly(
            self.decoder,
            [context for _, context in rows],
            [self.targets[index].token for index, _ in rows],
            [asked[index] for index, _ in rows],
            self.geometry,
            self.trial,
        )
        seconds = (time.perf_counter() - start) / len(indices)
        moved = dict(zip([index for index, _ in reversed(rows)], reversed(layers), strict=True))
        for index in indices:
            _spent(outcomes, index, moved[index], 0, seconds)


def _spent(outcomes: list[TargetOutcome], index: int, layers: int, neurons: int, seconds: float) -> None:
    old = outcomes[index]
    outcomes[index] = replace(
        old, layers=old.layers + layers, neurons=old.neurons + neurons, seconds=old.seconds + seconds
    )


def _measure(model: nn.Module, targets: list[_Target]) -> list[tuple[int, float]]:
    """Returns rank and probability of every target as the model itself, with its weights as they stand, has them."""
    found: list[tuple[int, float]] = []
    for start in range(0, len(targets), _MEASURED):
        batch = targets[start : start + _MEASURED]
        with torch.no_grad():
            logits = next_token_logits(model, [target.context for target in batch])
        tokens = torch.tensor([target.token for target in batch], device=logits.device)
        own = logits.gather(1, tokens[:, None])[:, 0]
        probabilities = (own - logits.logsumexp(dim=-1)).exp()
        found += zip(ranks(logits, tokens).tolist(), probabilities.tolist(), strict=True)
    return found


def _report(outcomes: list[TargetOutcome]) -> None:
    """Logs what was reached, without the secrets' text."""
    for outcome in outcomes:
        name = f"request {outcome.request}, target token {outcome.position}"
        if not outcome.reached:
            LOG.warning(
                "REVS: %s ended at rank %d instead of %d; edit more layers, or raise n_neurons or neuron_top_rank.",
                name,
                outcome.rank_after,
                outcome.asked_rank,
            )
        elif not outcome.layers:
            LOG.info("REVS: %s already had rank %d; nothing was changed for it.", name, outcome.rank_before)
