"""The single measurements that one evaluation is made of; each fills its part of the summary and of the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ..data.concepts import ConceptRecord
from ..data.files import SecretRecord
from ..decoder import Decoder
from ..requests import join, perturbed
from .attacks import layer_scores
from .concepts import fact_log_likelihoods, name_probabilities
from .contexts import in_context_prompts
from .continuation import still_generated
from .probes import Probe, probes_of
from .quantization import quantized
from .recall import recall, sampled_extractions
from .relearning import after_relearning
from .scores import output_scores, tokens_of_secrets, unlearning_score

ATTACKS = (
    *("logit lens", "perturbation", "delta", "quantization", "paraphrase", "in-context", "sampling", "relearning"),
)


@dataclass
class Evaluation:
    """One evaluation under way.

    Attributes:
        model: The model as it stands.
        tok: Its tokenizer.
        decoder: The same model with all of its layers.
        secrets: What has to be hidden.
        positions: For each secret the positions of its edited tokens.
        retain: What must still be there.
        concepts: What has to be unknown.
        k: From how many places on a token counts as hidden.
        n_samples: Continuations a secret.
        batch_size: Sequences a pass.
        seed: Of what is drawn at random.
        summary: Figures over all secrets.
        rows: Figures of each secret.
        concept_rows: Figures of each concept.
        ranks: For each secret the rank of its best-hidden token at every layer, where the layers were read.
    """

    model: nn.Module
    tok: Any
    decoder: Decoder
    secrets: Sequence[SecretRecord]
    positions: Mapping[int, Sequence[int]]
    retain: Sequence[SecretRecord]
    concepts: Sequence[ConceptRecord]
    k: int
    n_samples: int
    batch_size: int
    seed: int
    summary: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    concept_rows: list[dict[str, Any]] = field(default_factory=list)
    ranks: list[tuple[int, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Makes an empty row for each secret."""
        self.rows = [{} for _ in self.secrets]
        self.everyone = list(range(len(self.secrets)))
        self.prompts, self.targets = [s.prompt for s in self.secrets], [s.target for s in self.secrets]
        self.reworded = [index for index in self.everyone if self.secrets[index].rephrase_prompt]
        self.rewordings = [s.rephrase_prompt or s.prompt for s in self.secrets]

    def steps(self, attacks: Sequence[str]) -> list[Callable[[], None]]:
        """Returns what has to be done, in order."""
        found: list[Callable[[], None]] = []
        if self.secrets:
            inner = [name for name in ("logit lens", "delta") if name in attacks]
            found = [lambda: self.output(inner), self.retained, self.held]
            others = [name for name in attacks if name not in inner]
            found += [getattr(self, name.replace("-", "_")) for name in others]
        return [*found, self.unknown] if self.concepts else found

    def output(self, inner: Sequence[str]) -> None:
        """Efficacy, and the attacks on the layers behind the same prompts, in one pass; generality."""
        if inner:
            probes = self._probes(self.prompts, self.everyone)
            found = layer_scores(self.decoder, probes, self.k, delta="delta" in inner, batch_size=self.batch_size)
            # Every token of a secret is needed by an attacker, so the one that is hidden best speaks for it.
            best = [found.ranks[:, tokens].max(dim=1).values for tokens in tokens_of_secrets(probes)]
            self.ranks = [tuple(layers.tolist()) for layers in best]
            # The paper's efficacy is the rank in the last layer's residual.
            self._keep("efficacy", found.lens[-1], self.everyone)
            if "logit lens" in inner:
                self._keep_weakest("logit lens", found.lens)
            if found.delta is not None:
                self._keep("delta", found.delta, self.everyone)
                self.summary["delta"] = float(found.delta.min())
        else:
            self._score("efficacy", self.prompts, self.everyone)
        if self.reworded:
            self._score("generality", self.rewordings, self.reworded)

    def retained(self) -> None:
        """Specificity, and the Unlearning Score with it."""
        if self.retain:
            self.summary["specificity"] = self._given(self.retain)
            self.summary["unlearning_score"] = unlearning_score(
                self.summary["efficacy"], self.summary["specificity"], self.summary.get("generality")
            )

    def held(self) -> None:
        """What greedy decoding holds of the secrets."""
        said = still_generated(self.model, self.tok, self.prompts, self.targets, self.batch_size)
        found = recall(self.model, self.tok, self.prompts, self.targets, self.batch_size)
        for row, given, own in zip(self.rows, said, found, strict=True):
            row["still generated"] = given
            row["exact memorization"] = own.exact_memorization
            row["extraction strength"] = own.extraction_strength
        for name in ("still generated", "exact memorization", "extraction strength"):
            self.summary[name] = sum(row[name] for row in self.rows) / len(self.rows)

    def perturbation(self) -> None:
        """Reads the layers behind perturbed prompts."""
        probes = self._probes([perturbed(prompt, self.seed) for prompt in self.prompts], self.everyone)
        found = layer_scores(self.decoder, probes, self.k, delta=False, batch_size=self.batch_size)
        self._keep_weakest("perturbation", found.lens)

    def quantization(self) -> None:
        """Rounds the weights."""
        for bits in (8, 4):
            with quantized(self.model, bits):
                self._score(f"quantization, {bits} bits", self.prompts, self.everyone)

    def paraphrase(self) -> None:
        """Asks by the other wordings."""
        if self.reworded:
            said = still_generated(
                self.model,
                self.tok,
                [self.rewordings[index] for index in self.reworded],
                [self.targets[index] for index in self.reworded],
                self.batch_size,
            )
            for index, given in zip(self.reworded, said, strict=True):
                self.rows[index]["paraphrase"] = given
            self.summary["paraphrase"] = sum(said) / len(said)
        kept = [SecretRecord(s.rephrase_prompt, s.target) for s in self.retain if s.rephrase_prompt]
        if kept:
            self.summary["specificity, paraphrased"] = self._given(kept)

    def in_context(self) -> None:
        """Puts retained secrets in front."""
        examples = [(secret.prompt, secret.target) for secret in self.retain]
        if examples:
            self._score("in-context", in_context_prompts(self.prompts, examples, seed=self.seed), self.everyone)

    def sampling(self) -> None:
        """Draws continuations."""
        found = sampled_extractions(
            self.model, self.tok, self.prompts, self.targets, n_samples=self.n_samples, seed=self.seed
        )
        for row, count in zip(self.rows, found, strict=True):
            row["sampled"] = count
        self.summary["sampled"] = sum(count > 0 for count in found) / len(found)

    def relearning(self) -> None:
        """Teaches every second secret and asks for the others."""
        others = self.everyone[1::2]
        if others:
            texts = [join(*pair) for pair in zip(self.prompts[::2], self.targets[::2], strict=True)]
            probes = self._probes(self.prompts, others)
            found = after_relearning(
                self.model,
                self.tok,
                texts,
                lambda model: output_scores(model, probes, self.k, self.batch_size),
                seed=self.seed,
            )
            self._keep("relearning", found, others)

    def unknown(self) -> None:
        """The concepts, from description to name, abroad, and from name to facts."""
        for concept in self.concepts:
            asked = concept.held_out or concept.prompts
            own = name_probabilities(self.model, self.tok, asked, concept.name)
            abroad = name_probabilities(self.model, self.tok, concept.foreign, concept.name)
            facts = fact_log_likelihoods(self.model, self.tok, concept.facts)
            row: dict[str, Any] = {"concept": _mean(own), "concept, worst": max(own)}
            if abroad:
                row["concept, other languages"] = _mean(abroad)
            if facts:
                row["concept, facts (nats)"] = _mean(facts)
            self.concept_rows.append(row)
        for name in dict.fromkeys(name for row in self.concept_rows for name in row):
            values = [row[name] for row in self.concept_rows if name in row]
            self.summary[name] = max(values) if name == "concept, worst" else _mean(values)

    def _given(self, records: Sequence[SecretRecord]) -> float:
        prompts, targets = [record.prompt for record in records], [record.target for record in records]
        return _mean(still_generated(self.model, self.tok, prompts, targets, self.batch_size))

    def _score(self, name: str, prompts: Sequence[str], chosen: Sequence[int]) -> None:
        scores = output_scores(self.model, self._probes(prompts, chosen), self.k, self.batch_size)
        self._keep(name, scores, chosen)

    def _probes(self, prompts: Sequence[str], chosen: Sequence[int]) -> list[Probe]:
        return probes_of(self.tok, prompts, self.targets, {index: self.positions[index] for index in chosen})

    def _keep_weakest(self, name: str, scores: Tensor) -> None:
        """Keeps the scores of the layer where the attacker finds most."""
        layer = int(scores.mean(dim=1).argmin())
        self._keep(name, scores[layer], self.everyone)
        self.summary[f"{name}, layer"] = layer

    def _keep(self, name: str, scores: Tensor, chosen: Sequence[int]) -> None:
        for index, value in zip(chosen, scores.tolist(), strict=True):
            self.rows[index][name] = value
        self.summary[name] = float(scores.mean())


def _mean(values: Sequence[float] | Sequence[bool]) -> float:
    return sum(values) / len(values)
