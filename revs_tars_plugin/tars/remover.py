"""One concept out of the model: the four steps of TARS in their order."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..edits.edit_set import EditSet
from ..edits.trial import TrialEdits
from ..model.after_ff2 import AfterFF2
from ..model.decoder import Decoder
from ..model.forward import next_token_logits
from .affinity import Candidate, Neurons, best_candidates
from .common_state import without_common
from .concept_vector import ConceptStates, concept_states
from .concepts import Concept
from .name_detectors import NameDetectors
from .outcomes import ConceptOutcome
from .reversal import Matrices, Reversals, Reverser
from .targeting_vector import name_probabilities, refined_by_noise, whitened
from .tars_hparams import TARSHyperParams

Taken = dict[tuple[int, str], set[int]]
Prompts = tuple[tuple[int, ...], ...]


@dataclass(kw_only=True)
class ConceptRemover:
    """Takes one concept out of the model as it stands.

    Attributes:
        decoder: The model.
        concept: What to remove.
        hparams: The settings.
        matrices: The feed-forward matrices that may be edited, by layer and name.
        activity: Root mean square of every neuron's activation on ordinary text, by layer; empty where not needed.
        common: What the states of ordinary text have in common, for `refine: noise`.
        generator: The generator of the noise.
        trial: The trial that edits are written into.
        detectors: What writes neurons that find the name; None where that is not asked for.
    """

    decoder: Decoder
    concept: Concept
    hparams: TARSHyperParams
    matrices: Matrices
    activity: Mapping[int, Tensor]
    common: Tensor | None
    generator: torch.Generator
    trial: TrialEdits
    detectors: NameDetectors | None = None

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
        done, found, detectors, missed = Reversals(), Reversals(), 0, 0
        rolled_back = False
        if known and "to_name" in hparams.directions:
            done, after = self._reverse(states, taken, before)
            rolled_back = not done.chosen
        _take(done, taken)
        edits = done.edits(self.matrices)
        if known and self.detectors is not None and not rolled_back:
            detectors, missed = self.detectors.write(concept, taken, found)
            _take(found, taken)
            edits += found.edits(self.detectors.neurons.matrices)
            after = self._now(concept.prompts)
        return ConceptOutcome(
            name=concept.name,
            requests=concept.requests,
            known=known,
            before=before,
            after=after,
            goal=hparams.goal_probability if "to_name" in hparams.directions else None,
            reversed=len(done.chosen),
            detectors=detectors,
            undetected=missed,
            edits=EditSet(hparams.ALGORITHM, edits),
            seconds=time.perf_counter() - start,
        )

    def _reverse(
        self, states: ConceptStates, taken: Taken, before: tuple[float, ...]
    ) -> tuple[Reversals, tuple[float, ...]]:
        hparams, concept = self.hparams, self.concept
        targeting = self._targeting(states.vector)
        # A neuron that finds another name may stand behind that very name in a prompt.
        left_alone = {place: set(neurons) for place, neurons in taken.items()}
        for place, neurons in self.detectors.found_already().items() if self.detectors is not None else ():
            left_alone.setdefault(place, set()).update(neurons)
        candidates = self._candidates(states.activations, targeting, hparams.n_edits, left_alone)
        # Short prompts first: most edits are followed by another one, and they say so in a tenth of the time.
        groups: list[Prompts] = [prompts for prompts in (concept.shortened, concept.prompts) if prompts]
        latest: dict[Prompts, tuple[float, ...]] = {}

        def probability() -> float:
            latest.clear()
            for group in groups:
                latest[group] = self._now(group)
                if max(latest[group]) >= hparams.goal_probability:
                    # The prompts that still give the name away are the first to be read next time.
                    groups.sort(key=lambda other: other is not group)
                    break
            return max(map(max, latest.values()))

        directions = {place: self._direction(place, targeting) for place in self.matrices}
        reverser = Reverser(
            matrices=self.matrices,
            targeting=directions,
            scale=hparams.reversal_scale,
            added=hparams.reversal == "added",
            trial=self.trial,
        )
        done, last = reverser.reverse_until(candidates, probability, max(before), hparams.goal_probability)
        if not last < hparams.goal_probability and hparams.on_failure == "rollback":
            reverser.take_back(done)
            return Reversals(), before
        return done, latest.get(concept.prompts) or self._now(concept.prompts)

    def _candidates(
        self, activations: Mapping[int, Tensor], targeting: Tensor, count: int, taken: Taken
    ) -> list[Candidate]:
        groups = [
            Neurons(
                layer,
                matrix,
                weights,
                activations[layer].mean(dim=0),
                self.activity.get(layer),
                self._after(layer, matrix),
            )
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
        hparams, lens, tokens = self.hparams, self.decoder.lens, self.concept.tokens
        if hparams.refine == "whitened":
            return whitened(lens, tokens)
        targeting = refined_by_noise(
            lens,
            concept_vector,
            tokens,
            probability=hparams.targeting_probability,
            scale=hparams.noise_scale,
            candidates=hparams.candidates,
            rounds=hparams.rounds,
            generator=self.generator,
        )
        return targeting if self.common is None else without_common(targeting, self.common)

    def _direction(self, place: tuple[int, str], targeting: Tensor) -> Tensor:
        """The targeting vector as a matrix's own vectors have to stand for it.

        A reversed vector is as long as the one that it replaces. So behind a norm whose gains differ it is not what
        comes out of it as the targeting vector, most of which would be lost there, but what goes furthest along it.
        """
        after, ridge = self._after(*place), self.hparams.direction_ridge
        if ridge and place[1] == "down" and self.hparams.refine == "whitened":
            tokens = torch.tensor(list(self.concept.tokens))
            directions = self.decoder.lens.directions.of(tokens, ridge=ridge, gain=after.gain)
            return after.before(directions.sum(dim=0))
        return after.unscaled(targeting)

    def _after(self, layer: int, matrix: str) -> AfterFF2:
        """What stands between a matrix and the residual space that its vectors are compared in."""
        return self.decoder.after_ff2[layer] if matrix == "down" else AfterFF2()

    def _now(self, prompts: Prompts) -> tuple[float, ...]:
        return self._probabilities(next_token_logits(self.decoder.model, prompts))

    def _probabilities(self, logits: Tensor) -> tuple[float, ...]:
        return tuple(name_probabilities(logits, self.concept.tokens).tolist())


def _take(done: Reversals, taken: Taken) -> None:
    for candidate in done.chosen:
        taken.setdefault((candidate.layer, candidate.matrix), set()).add(candidate.neuron)
