"""TARS: targeted angular reversal of weights (Davies, Iacovides, Mandic; arXiv 2412.10257)."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..decoder import Decoder, FeedForwardMatrix
from ..edits import EditSet, OriginalWeights
from ..forward import next_token_logits
from ..statistics import mean_state, second_moments
from ..trial_edits import TrialEdits
from .affinity import Neurons, best_candidates
from .concept_vector import ConceptStates, concept_states
from .concepts import Concept, read_concepts
from .reversal import Reversals, reverse_until, take_back
from .targeting_vector import refined_by_noise, whitened, without_common
from .tars_hparams import NEEDS_ACTIVITY, TARSHyperParams

LOG = logging.getLogger(__name__)

# Texts whose mean state counts as what all states have in common, and their length in tokens.
_COMMON_TEXTS = 64


@dataclass(frozen=True)
class ConceptOutcome:
    """What became of one concept.

    Attributes:
        name: The concept.
        requests: Positions of its requests in the call.
        known: Whether the model gave the name before, on any prompt, with `min_probability` or more.
        before: The name's probability after each of its prompts before the edit.
        after: The same with all edits of the call up to this one in place, this one's included.
        goal: The probability it had to fall below.
        reversed: How many vectors were reversed; 0 where the concept was unknown or rolled back.
        edits: What was changed for this concept alone; it can be undone by itself.
        seconds: Time spent on it.
    """

    name: str
    requests: tuple[int, ...]
    known: bool
    before: tuple[float, ...]
    after: tuple[float, ...]
    goal: float
    reversed: int
    edits: EditSet
    seconds: float

    @property
    def reached(self) -> bool:
        """Whether the name is below the goal on every prompt."""
        return max(self.after) < self.goal


def apply_tars_to_model(
    model: nn.Module,
    tok: Any,
    requests: Sequence[Mapping[str, Any]],
    hparams: TARSHyperParams,
    copy: bool = False,
    return_orig_weights: bool = False,
    cache_template: str | None = None,
    keep_original_weight: bool = False,
    **kwargs: Any,
) -> tuple[nn.Module, Mapping[str, Tensor]]:
    """Edits a model so that it no longer gives the concepts of the requests; the host's contract.

    Args:
        model: A causal language model.
        tok: Its tokenizer.
        requests: The host's request dictionaries; see `read_concepts`.
        hparams: The settings.
        copy: Edit a copy and leave `model` alone.
        return_orig_weights: Return what restores the weights.
        cache_template: Taken for the host's sake; TARS caches nothing.
        keep_original_weight: Taken for the host's sake; `return_orig_weights` decides.
        **kwargs: Taken for the host's sake.

    Returns:
        The edited model, and the original weights by name (empty without `return_orig_weights`). The second has the
        `EditSet` in its attribute `edits`.

    Raises:
        InputError: As `execute_tars`; no weight has changed then.
    """
    if copy:
        model = deepcopy(model)
    edits = execute_tars(model, tok, requests, hparams)
    edits.apply(model)
    return model, OriginalWeights(model, edits, restores=return_orig_weights)


def execute_tars(
    model: nn.Module, tok: Any, requests: Sequence[Mapping[str, Any]], hparams: TARSHyperParams
) -> EditSet:
    """Computes the edit that removes every concept, one after another; all weights are as before when it returns.

    No vector is reversed for two concepts of a call, so each concept's own `EditSet`, in its outcome, can be applied
    and undone without the others.

    Args:
        model: A causal language model; its weights are edited while the function runs and put back to the bit, also
            when it fails or is interrupted.
        tok: Its tokenizer.
        requests: The host's request dictionaries.
        hparams: The settings.

    Returns:
        The edit of all concepts together, with one `ConceptOutcome` per concept.

    Raises:
        InputError: When a request, a setting or the model cannot be used.
    """
    hparams.validate()
    decoder = Decoder(model, hparams)
    concepts = read_concepts(requests, tok, hparams, decoder.context_length)
    matrices = _matrices(decoder, hparams)
    activity = _activity(decoder, tok, hparams) if hparams.affinity in NEEDS_ACTIVITY else {}
    common = None
    if hparams.refine == "noise" and hparams.remove_common:
        common = mean_state(decoder, tok, hparams.mom2_dataset, hparams.concept_layer, _COMMON_TEXTS, hparams.seed)
    generator = torch.Generator().manual_seed(hparams.seed)
    outcomes: list[ConceptOutcome] = []
    taken: dict[tuple[int, str], set[int]] = {}
    with TrialEdits() as trial:
        for concept in concepts:
            remover = _Remover(decoder, concept, hparams, matrices, activity, common, generator, trial)
            outcomes.append(remover.remove(taken))
    for outcome in outcomes:
        _report(outcome)
    edits = tuple(edit for outcome in outcomes for edit in outcome.edits.edits)
    return EditSet("TARS", edits, tuple(outcomes))


@dataclass
class _Remover:
    """Takes one concept out of the model as it stands."""

    decoder: Decoder
    concept: Concept
    hparams: TARSHyperParams
    matrices: Mapping[tuple[int, str], FeedForwardMatrix]
    activity: Mapping[int, Tensor]
    common: Tensor | None
    generator: torch.Generator
    trial: TrialEdits

    def remove(self, taken: dict[tuple[int, str], set[int]]) -> ConceptOutcome:
        start = time.perf_counter()
        before = self._probabilities()
        known = max(before) >= self.hparams.min_probability
        done, after = Reversals(), before
        if known and max(before) >= self.hparams.goal_probability:
            done, after = self._reverse(taken, before)
        for candidate in done.chosen:
            taken.setdefault((candidate.layer, candidate.matrix), set()).add(candidate.neuron)
        return ConceptOutcome(
            name=self.concept.name,
            requests=self.concept.requests,
            known=known,
            before=before,
            after=after,
            goal=self.hparams.goal_probability,
            reversed=len(done.chosen),
            edits=EditSet("TARS", done.edits(self.matrices)),
            seconds=time.perf_counter() - start,
        )

    def _reverse(
        self, taken: Mapping[tuple[int, str], set[int]], before: tuple[float, ...]
    ) -> tuple[Reversals, tuple[float, ...]]:
        hparams = self.hparams
        states = concept_states(self.decoder, self.concept.prompts, hparams.concept_layer, hparams.concept_position)
        targeting = self._targeting(states)
        groups = [
            Neurons(layer, matrix, weights, states.activations[layer].mean(dim=0), self.activity.get(layer))
            for (layer, matrix), weights in self.matrices.items()
        ]
        candidates = best_candidates(groups, targeting, hparams.affinity, hparams.n_edits, taken)
        latest = before

        def probability() -> float:
            nonlocal latest
            latest = self._probabilities()
            return max(latest)

        done, last = reverse_until(
            candidates,
            self.matrices,
            targeting,
            hparams.reversal_scale,
            self.trial,
            probability,
            hparams.goal_probability,
        )
        if not last < hparams.goal_probability and hparams.on_failure == "rollback":
            take_back(done, self.matrices, self.trial)
            return Reversals(), before
        return done, latest

    def _targeting(self, states: ConceptStates) -> Tensor:
        hparams, vocabulary, tokens = self.hparams, self.decoder.vocabulary, self.concept.tokens
        if hparams.refine == "whitened":
            return whitened(vocabulary, tokens)
        found = refined_by_noise(
            vocabulary,
            states.vector,
            tokens,
            probability=hparams.targeting_probability,
            scale=hparams.noise_scale,
            candidates=hparams.candidates,
            rounds=hparams.rounds,
            generator=self.generator,
        )
        return found if self.common is None else without_common(found, self.common)

    def _probabilities(self) -> tuple[float, ...]:
        """The probability, after each prompt, that the name begins."""
        with torch.no_grad():
            logits = next_token_logits(self.decoder.model, self.concept.prompts)
        tokens = torch.tensor(self.concept.tokens, device=logits.device)
        found: list[float] = logits.log_softmax(dim=-1)[:, tokens].logsumexp(dim=-1).exp().tolist()
        return tuple(found)


def _matrices(decoder: Decoder, hparams: TARSHyperParams) -> dict[tuple[int, str], FeedForwardMatrix]:
    found = {}
    for matrix in dict.fromkeys(hparams.matrices):
        key = f"{matrix}_module_tmp"
        own = decoder.ff2 if matrix == "down" else decoder.first_matrices(key, getattr(hparams, key))
        found.update({(layer, matrix): weights for layer, weights in own.items()})
    return found


def _activity(decoder: Decoder, tok: Any, hparams: TARSHyperParams) -> dict[int, Tensor]:
    """The root mean square of every neuron's activation on ordinary text."""
    moments = second_moments(
        decoder,
        tok,
        hparams.mom2_dataset,
        stats_dir=hparams.stats_dir,
        n_samples=hparams.mom2_n_samples,
        precision=hparams.mom2_dtype,
        seed=hparams.seed,
    )
    return {layer: moment.mean.diagonal().clamp_min(0).sqrt() for layer, moment in moments.items()}


def _report(outcome: ConceptOutcome) -> None:
    if not outcome.known:
        LOG.warning(
            'TARS: the model does not know "%s" (probability %.3g on its prompts); nothing was changed for it.',
            outcome.name,
            max(outcome.before),
        )
    elif not outcome.reached:
        LOG.warning(
            'TARS: "%s" ended at probability %.3g instead of %.3g; %s. Raise n_edits or reversal_scale.',
            outcome.name,
            max(outcome.after),
            outcome.goal,
            f"its {outcome.reversed} reversals were kept" if outcome.reversed else "its reversals were rolled back",
        )
