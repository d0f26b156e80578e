"""Secrets of several wordings, one of which is edited: the REVS paper's table, on its SSN file or on drawn secrets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..data.drawn_secrets import drawn_secrets
from ..data.secret_files import SecretRecord, csv_lines, text_of
from ..errors import InputError
from ..evaluation import RESISTANCE_ATTACKS, evaluate_unlearning
from ..model.module_names import ModuleNames
from .benchmark import Scores
from .records import SECRET, Record, Split

# As errors and files call them.
SSN, SECRETS = "SSN", "Secrets"
_COLUMNS = ("prompt", "sentence", "ssn", "name")
# The paper's, and one that compares with made-up secrets; exposure is measured of every benchmark.
_ATTACKS = (*RESISTANCE_ATTACKS, "membership")


@dataclass(frozen=True)
class Secrets:
    """Secrets that a model learns in every wording and is asked to forget by one of them.

    Attributes:
        name: What result files and tables call it.
        forget: What has to be forgotten.
        retain: What has to stay.
        sentences: By its prompt what a model learns to say behind it: the secret, and how the sentence goes on.
        k: From how many places on a token counts as hidden.
        seed: Seed of the attacks.
    """

    name: str
    forget: tuple[SecretRecord, ...]
    retain: tuple[SecretRecord, ...]
    sentences: Mapping[str, str]
    k: int = 100
    seed: int = 0
    # Bits are left out: shares and bits make no common mean.
    compared: tuple[str, ...] = ("efficacy", "generality", "specificity", "resistance_score", "min-k")

    @property
    def learned(self) -> tuple[Record, ...]:
        """All wordings of all secrets."""
        return self._records((*self.forget, *self.retain), all_wordings=True)

    @property
    def kept(self) -> tuple[Record, ...]:
        """All wordings of the secrets to retain."""
        return self._records(self.retain, all_wordings=True)

    @property
    def split(self) -> Split:
        """The first wording of each."""
        return Split(self._records(self.forget), self._records(self.retain))

    def _records(self, secrets: Sequence[SecretRecord], all_wordings: bool = False) -> tuple[Record, ...]:
        return tuple(
            Record(
                identifier=f"{secret.target} {number}",
                person=secret.subject or secret.target,
                kind=SECRET,
                task=self.name,
                prompt=prompt,
                answer=self.sentences[prompt],
                secret=secret.target,
                subject=secret.subject,
            )
            for secret in secrets
            for number, prompt in enumerate((secret.prompt, *(secret.rewordings if all_wordings else ())))
        )

    def scores(self, model: nn.Module, tok: Any) -> Scores:
        """Returns the REVS paper's figures, of all tokens of a secret; see `evaluate_unlearning`."""
        report = evaluate_unlearning(
            model,
            tok,
            self.forget,
            names=ModuleNames.found_in(model),
            positions="all",
            retain=self.retain,
            attacks=_ATTACKS,
            k=self.k,
            seed=self.seed,
        )
        return {name: (float(value), {}) for name, value in report.summary.items()}

    def against(self, scores: Scores, gold: Scores) -> Scores:
        """No metric of the paper compares two models."""
        return {}


def read_ssn(file: str | Path, secrets: int | None = None, **options: Any) -> Secrets:
    """Reads the REVS paper's file of social security numbers, all of made-up people; the first half is forgotten.

    The first sentence of a number is what an edit is given, the others are kept for generality. Sentences that begin
    alike and go on with two numbers are left out.

    Args:
        file: CSV with prompt, sentence, ssn, name; five sentences a number.
        secrets: So many numbers, half of them to forget; by default all.
        **options: Further attributes of `Secrets`.

    Raises:
        InputError: Naming the file, its line and column.
    """
    place = Path(file).expanduser()
    by_number: dict[tuple[str, str], list[str]] = {}
    sentences: dict[str, str] = {}
    ambiguous: set[str] = set()

    def check(columns: Sequence[str]) -> None:
        missing = [name for name in _COLUMNS if name not in columns]
        if missing:
            raise InputError(
                f'{place}, line 1: no column "{missing[0]}"; the published file has {", ".join(_COLUMNS)}.'
            )

    for line, row in csv_lines(str(place), text_of(place), check):
        for name in _COLUMNS:
            if not (row.get(name) or "").strip():
                raise InputError(f'{place}, line {line}: "{name}" is missing or empty.')
        prompt, sentence, number = row["prompt"], row["sentence"], row["ssn"]
        rest = sentence.removeprefix(prompt).strip()
        if rest == sentence or not rest.startswith(number):
            raise InputError(f'{place}, line {line}: "sentence" must begin with "prompt" and go on with "ssn".')
        if sentences.setdefault(prompt, rest) != rest:
            ambiguous.add(prompt)
        by_number.setdefault((row["name"], number), []).append(prompt)
    # Nobody can learn to say two numbers behind one prompt.
    by_number = {
        person: kept for person, prompts in by_number.items() if (kept := [p for p in prompts if p not in ambiguous])
    }
    if len(by_number) < 2 or (secrets is not None and not 2 <= secrets <= len(by_number)):
        raise InputError(
            f"{place} holds {len(by_number)} numbers; take at least 2 of them, one to forget and one to retain."
        )
    records = [
        SecretRecord(prompts[0], number, name, tuple(prompts[1:])) for (name, number), prompts in by_number.items()
    ][:secrets]
    # A person's numbers belong together.
    people = list(dict.fromkeys(record.subject for record in records))
    forgotten = set(people[: max(1, len(people) // 2)])
    forget, retain = (
        tuple(record for record in records if (record.subject in forgotten) is chosen) for chosen in (True, False)
    )
    if not retain:
        raise InputError(f"{place} is about one person; it takes two, one to forget and one to retain.")
    return Secrets(SSN, forget, retain, sentences, **options)


def drawn(forget: int = 12, seed: int = 0, **options: Any) -> Secrets:
    """Draws secrets of four kinds with two to five wordings, see `drawn_secrets`; of each wording one is retained.

    Args:
        forget: How many to forget, at most 24.
        seed: Seed of kinds, wordings, names and secrets.
        **options: Further attributes of `Secrets`.

    Raises:
        InputError: When there are not so many.
    """
    every = [secret.record() for secret in drawn_secrets(2, seed)]
    if not 1 <= forget <= len(every) // 2:
        raise InputError(f"forget is {forget}; it must be from 1 to {len(every) // 2}.")
    half = every[::2]
    chosen = half[:: len(half) // forget][:forget]
    sentences = {prompt: f"{secret.target}." for secret in every for prompt in (secret.prompt, *secret.rewordings)}
    return Secrets(SECRETS, tuple(chosen), tuple(every[1::2]), sentences, seed=seed, **options)
