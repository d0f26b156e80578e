"""One evaluation under way: what is measured on which model, and the figures so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from ..data.concept_files import ConceptRecord
from ..data.secret_files import SecretRecord
from ..model.decoder import Decoder
from ..requests.chat import asked_prompt
from .continuation import still_generated
from .integrity import OrdinaryText
from .likelihood import Comparison, compared
from .probes import Probe, probes_of
from .scores import output_scores


@dataclass(frozen=True)
class RunOptions:
    """What decides the figures of a run.

    Attributes:
        attacks: Which attacks are run.
        k: From how many places on a token counts as hidden.
        n_samples: How many continuations are sampled for each secret.
        batch_size: The most sequences of a pass.
        seed: Seed of what is drawn at random.
        chat_template: Whether prompts are put through the tokenizer's chat template.
    """

    attacks: tuple[str, ...]
    k: int
    n_samples: int
    batch_size: int
    seed: int
    chat_template: bool = False


@dataclass
class EvaluationRun:
    """One evaluation under way; every measurement adds to its figures.

    Attributes:
        model: The model as it stands.
        tok: Its tokenizer.
        decoder: The same model with all of its layers.
        options: What decides the figures.
        secrets: What has to be hidden.
        positions: For each secret the positions of its edited tokens.
        retain: What must still be there.
        concepts: What has to be unknown.
        text: Gives ordinary text as the model before the edit has it; None where the cost is not measured.
        never_learned: A model that never learned the secrets, where one is given.
        summary: Figures over all secrets.
        rows: Figures of each secret.
        concept_rows: Figures of each concept.
        ranks: For each secret the rank of its best-hidden token at every layer, where the layers were read.
        divergences: KL(original || edited) at every position of the text, nats.
    """

    model: nn.Module
    tok: Any
    decoder: Decoder
    options: RunOptions
    secrets: Sequence[SecretRecord]
    positions: Mapping[int, Sequence[int]]
    retain: Sequence[SecretRecord]
    concepts: Sequence[ConceptRecord]
    text: Callable[[], OrdinaryText] | None
    never_learned: nn.Module | None = None
    summary: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    concept_rows: list[dict[str, Any]] = field(default_factory=list)
    ranks: list[tuple[int, ...]] = field(default_factory=list)
    divergences: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Makes an empty row for each secret."""
        self.rows = [{} for _ in self.secrets]

    @property
    def everyone(self) -> list[int]:
        """The places of all secrets."""
        return list(range(len(self.secrets)))

    @property
    def rewordings(self) -> list[tuple[int, str]]:
        """Every other wording of every secret, with the secret's place."""
        return [(index, wording) for index in self.everyone for wording in self.secrets[index].rewordings]

    @property
    def prompts(self) -> list[str]:
        """The prompt of each secret."""
        return [secret.prompt for secret in self.secrets]

    @property
    def targets(self) -> list[str]:
        """The text of each secret."""
        return [secret.target for secret in self.secrets]

    def asked(self, prompts: Sequence[str]) -> list[str]:
        """Returns prompts as the model gets them: what a user says, where it is a chat model, or as they are."""
        return [asked_prompt(self.tok, prompt, self.options.chat_template) for prompt in prompts]

    def probes(self, prompts: Sequence[str], chosen: Sequence[int]) -> list[Probe]:
        """Returns probes of the edited tokens of the chosen secrets behind these prompts, one prompt a secret."""
        return probes_of(
            self.tok, self.asked(prompts), self.targets, {index: self.positions[index] for index in chosen}
        )

    def score(self, name: str, prompts: Sequence[str], chosen: Sequence[int]) -> None:
        """Scores the chosen secrets at the model's output behind these prompts."""
        probes = self.probes(prompts, chosen)
        self.keep(name, output_scores(self.model, probes, self.options.k, self.options.batch_size), chosen)

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Each secret beside made-up ones of its form; made once for all that looks at them."""
        return self.compared()

    def compared(self) -> list[Comparison]:
        """Compares once more, for a model that was changed meanwhile."""
        return compared(self.model, self.tok, self.asked(self.prompts), self.targets, seed=self.options.seed)

    @cached_property
    def reworded_comparisons(self) -> list[Comparison]:
        """The same behind every other wording, in the order of `rewordings`."""
        prompts = [wording for _, wording in self.rewordings]
        targets = [self.targets[index] for index, _ in self.rewordings]
        return compared(self.model, self.tok, self.asked(prompts), targets, seed=self.options.seed)

    def note(self, name: str, values: Sequence[float | None]) -> None:
        """Keeps a figure of those secrets that have it, and their mean; nothing where none has."""
        known = [value for value in values if value is not None]
        for row, value in zip(self.rows, values, strict=True):
            if value is not None:
                row[name] = value
        if known:
            self.summary[name] = mean(known)

    def note_reworded(self, name: str, values: Sequence[float | None]) -> None:
        """Keeps the mean over its other wordings of each secret that has the figure, and the mean of those."""
        of_secrets: dict[int, list[float]] = {}
        for (index, _), value in zip(self.rewordings, values, strict=True):
            if value is not None:
                of_secrets.setdefault(index, []).append(value)
        self.note(name, [mean(of_secrets[index]) if index in of_secrets else None for index in self.everyone])

    def keep(self, name: str, scores: Tensor, chosen: Sequence[int]) -> None:
        """Keeps each chosen secret's score, and their mean."""
        for index, value in zip(chosen, scores.tolist(), strict=True):
            self.rows[index][name] = value
        self.summary[name] = float(scores.mean())

    def keep_weakest(self, name: str, scores: Tensor) -> None:
        """Keeps all secrets' scores of the layer where the attacker finds most, and names the layer."""
        layer = int(scores.mean(dim=1).argmin())
        self.keep(name, scores[layer], self.everyone)
        self.summary[f"{name}, layer"] = layer

    def generated(self, prompts: Sequence[str], targets: Sequence[str]) -> list[bool]:
        """Returns for each prompt whether greedy decoding goes on with its target."""
        return still_generated(self.model, self.tok, self.asked(prompts), targets, self.options.batch_size)

    def share_generated(self, records: Sequence[SecretRecord]) -> float:
        """Returns the share of records whose target greedy decoding still gives."""
        return mean(self.generated([record.prompt for record in records], [record.target for record in records]))


def mean(values: Sequence[float] | Sequence[bool]) -> float:
    """Returns the mean of figures, or the share of truths."""
    return sum(values) / len(values)
