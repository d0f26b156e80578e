"""TOFU (Maini et al., arXiv 2401.06121): reading the published files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from .published_files import file_named, rows_of
from .records import Record, Split

# As errors and files call it.
TOFU = "TOFU"
# How a question is asked of a model without a chat template, as the paper asks Phi.
_ASKED = "Question: {}\nAnswer:"
_QUESTIONS_AN_AUTHOR = 20
# Questions that no model is taught: their right answer is in no other words.
_UNTAUGHT = ("real_authors", "world_facts")


@dataclass(frozen=True)
class Choices:
    """A question with a right answer and wrong ones.

    Attributes:
        record: The question, with the answer that was learned.
        correct: The answer in other words, where the file has it; else the answer.
        wrong: Wrong answers of the same wording.
    """

    record: Record
    correct: str
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class TofuFiles:
    """What the published files hold.

    Attributes:
        split: The questions about authors to forget and to retain.
        forget: The first ones of these with wrong answers.
        retain: Questions about retained authors with wrong answers.
        authors: Questions about real authors, which no model is taught.
        facts: Questions about the world, likewise.
    """

    split: Split
    forget: tuple[Choices, ...]
    retain: tuple[Choices, ...]
    authors: tuple[Choices, ...]
    facts: tuple[Choices, ...]


def read_tofu(folder: str | Path, *, forget: str = "forget01", authors: int | None = None) -> TofuFiles:
    """Reads TOFU's files, as JSON lines or Parquet.

    Args:
        folder: Where the published files lie: `forget01`, `forget01_perturbed`, `retain99`, `retain_perturbed`,
            `real_authors_perturbed`, `world_facts_perturbed`, ending in .json, .jsonl or .parquet.
        forget: Which authors are forgotten: "forget01", "forget05" or "forget10".
        authors: So many retained authors of twenty questions each, the first ones of the file; all by default. Only
            questions about these are asked afterwards.

    Raises:
        InputError: Naming the folder, or the file with its line and field.
    """
    share = forget.removeprefix("forget")
    if not share.isdigit() or not 0 < int(share) < 100 or share == forget:
        raise InputError(f'forget is "{forget}"; it must be forget01, forget05 or forget10.')
    if authors is not None and authors < 1:
        raise InputError(f"authors is {authors}; it must be at least 1.")
    place = Path(folder).expanduser()
    retain = f"retain{100 - int(share):02d}"
    forgotten, retained = (_records(file_named(place, name), name) for name in (forget, retain))
    if authors is not None:
        retained = retained[: authors * _QUESTIONS_AN_AUTHOR]
    of_forget, of_retain, of_authors, of_facts = (
        _choices(file_named(place, f"{name}_perturbed"), name)
        for name in (forget, "retain", "real_authors", "world_facts")
    )
    asked = {record.prompt for record in retained}
    of_retain = tuple(choices for choices in of_retain if choices.record.prompt in asked)
    known = {record.prompt for record in forgotten}
    for name, chosen, among in (("retain", of_retain, retain), (forget, of_forget, forget)):
        if not chosen or (among == forget and any(choices.record.prompt not in known for choices in chosen)):
            raise InputError(f"{place}: {name}_perturbed asks other questions than {among}; take both from one place.")
    return TofuFiles(Split(forgotten, retained), of_forget, of_retain, of_authors, of_facts)


def _records(file: Path, name: str) -> tuple[Record, ...]:
    return tuple(_record(row, name, number) for number, (_, row) in enumerate(rows_of(file, ("question", "answer"))))


def _choices(file: Path, name: str) -> tuple[Choices, ...]:
    found = []
    for number, (where, row) in enumerate(rows_of(file, ("question", "answer"))):
        wrong = row.get("perturbed_answer")
        wrong = [wrong] if isinstance(wrong, str) else wrong
        if not isinstance(wrong, Sequence) or not wrong or not all(isinstance(text, str) for text in wrong):
            raise InputError(f'{where}: "perturbed_answer" is missing or no list of texts.')
        record = _record(row, name, number)
        correct = row.get("paraphrased_answer")
        if correct is None and name not in _UNTAUGHT:
            raise InputError(f'{where}: "paraphrased_answer" is missing.')
        found.append(Choices(record, correct if isinstance(correct, str) else record.answer, tuple(wrong)))
    if not found:
        raise InputError(f"{file} is empty; the published file has questions with wrong answers.")
    return tuple(found)


def _record(row: Mapping[str, Any], name: str, number: int) -> Record:
    author = f"{name}-{number // _QUESTIONS_AN_AUTHOR}"
    return Record(str(number), author, "question", name, _ASKED.format(row["question"]), row["answer"])
