"""One concept out of the model: the four steps of TARS in their order."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..decoder import Decoder, FeedForwardMatrix
from ..edits import EditSet
from ..forward import next_token_logits
from ..trial_edits import TrialEdits
from .affinity import Candidate, Neurons, best_candidates
from .concept_vector import ConceptStates, concept_states
from .concepts import Concept
from .reversal import Reversals, reverse_all, reverse_until, take_back
from .targeting_vector import name_probabilities, refined_by_noise, whitened, without_common
from .tars_hparams import TARSHyperParams

Taken = dict[tuple[int, str], set[int]]
Prompts = tuple[tuple[int, ...], ...]


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


@dataclass
class ConceptRemover:
    """Takes one concept out of the model as it stands.

    Attributes:
        decoder: The model.
        concept: What to remove.
        hparams: The settings.
        matrices: The feed-forward matrices that may be edited, by layer and name.
        activity: Root mean square of every neuron's activation on ordinary text, by layer; empty where not needed.
        common: What the states of ordinary text have in common, for `refine: noise`.
        generator: Of the noise.
        trial: Where edits are written.
    """

    decoder: Decoder
    concept: Concept
    hparams: TARSHyperParams
    matrices: Mapping[tuple[int, str], FeedForwardMatrix]
    activity: Mapping[int, Tensor]
    common: Tensor | None
    generator: torch.Generator
    trial: TrialEdits

    def remove(self, taken: Taken) -> ConceptOutcome:
        """Reverses what carries the concept.

        Args:
            taken: Vectors that earlier concepts reversed, which are left alone; this concept's are added.
        """
        start = time.perf_counter()
        hparams, concept = self.hparams, self.concept
        prompts = (*concept.prompts, *concept.shortened)
        states = concept_states(self.decoder, prompts, hparams.concept_layer, hparams.concept_position)
        before = after = self._probabilities(states.logits)[: len(concept.prompts)]
        known = max(before) >= hparams.min_probability
        done = Reversals()
        if known:
            done, after = self._reverse(states, taken, before)
        _take(done, taken)
        return ConceptOutcome(
            name=concept.name,
            requests=concept.requests,
            known=known,
            before=before,
            after=after,
            goal=hparams.goal_probability,
            reversed=len(done.chosen),
            edits=EditSet("TARS", done.edits(self.matrices)),
            seconds=time.perf_counter() - start,
        )

    def _reverse(
        self, states: ConceptStates, taken: Taken, before: tuple[float, ...]
    ) -> tuple[Reversals, tuple[float, ...]]:
        hparams, concept = self.hparams, self.concept
        targeting = self._targeting(states.vector)
        candidates = self._candidates(states.activations, targeting, hparams.n_edits, taken)
        # Short prompts first: most edits are followed by another one, and they say so in a tenth of the time.
        groups: list[Prompts] = [prompts for prompts in (concept.shortened, concept.prompts) if prompts]
        found: dict[Prompts, tuple[float, ...]] = {}

        def probability() -> float:
            found.clear()
            for group in groups:
                found[group] = self._after(group)
                if max(found[group]) >= hparams.goal_probability:
                    # What still gives the name away will be the first to be asked next time.
                    groups.sort(key=lambda other: other is not group)
                    break
            return max(map(max, found.values()))

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
        if hparams.name_edits:
            self._reverse_behind_the_name(done, targeting, taken)
            found.clear()
        return done, found.get(concept.prompts) or self._after(concept.prompts)

    def _reverse_behind_the_name(self, done: Reversals, targeting: Tensor, taken: Taken) -> None:
        """Reverses what fires for the name itself, which is what facts about it are read from."""
        states = concept_states(self.decoder, self.concept.named, self.hparams.concept_layer, -1)
        _take(done, taken)
        candidates = self._candidates(states.activations, targeting, self.hparams.name_edits, taken)
        reverse_all(candidates, self.matrices, targeting, self.hparams.reversal_scale, self.trial, done)

    def _candidates(
        self, activations: Mapping[int, Tensor], targeting: Tensor, count: int, taken: Taken
    ) -> list[Candidate]:
        groups = [
            Neurons(layer, matrix, weights, activations[layer].mean(dim=0), self.activity.get(layer))
            for (layer, matrix), weights in self.matrices.items()
        ]
        hparams = self.hparams
        return best_candidates(
            groups,
            targeting,
            hparams.affinity,
            count,
            taken,
            specificity=hparams.specificity,
            spared=hparams.spared,
        )

    def _targeting(self, concept_vector: Tensor) -> Tensor:
        hparams, vocabulary, tokens = self.hparams, self.decoder.vocabulary, self.concept.tokens
        if hparams.refine == "whitened":
            return whitened(vocabulary, tokens)
        found = refined_by_noise(
            vocabulary,
            concept_vector,
            tokens,
            probability=hparams.targeting_probability,
            scale=hparams.noise_scale,
            candidates=hparams.candidates,
            rounds=hparams.rounds,
            generator=self.generator,
        )
        return found if self.common is None else without_common(found, self.common)

    def _after(self, prompts: Prompts) -> tuple[float, ...]:
        return self._probabilities(next_token_logits(self.decoder.model, prompts))

    def _probabilities(self, logits: Tensor) -> tuple[float, ...]:
        return tuple(name_probabilities(logits, self.concept.tokens).tolist())


def _take(done: Reversals, taken: Taken) -> None:
    for candidate in done.chosen:
        taken.setdefault((candidate.layer, candidate.matrix), set()).add(candidate.neuron)
