"""LUME (Ramakrishna et al., arXiv 2502.15097; SemEval-2025, task 4): reading the published files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from .published_files import rows_of
from .records import Record, Split, people_of

# As errors and files call it.
LUME = "LUME"
_FIELDS = ("id", "input", "output", "task")
# An identifier ends in what it asks for and a digit: "...sc1" completes a text, "...qa3" is a question about it.
_IDENTIFIER = re.compile(r"(?P<person>.+?)(?P<kind>sc|qa)(?P<number>\d+)")
_KINDS = {"sc": "completion", "qa": "question"}


def read_lume(
    folder: str | Path, *, tasks: Sequence[str] = ("Task2",), people: int | None = None, unseen: int | None = None
) -> Split:
    """Reads the forget and the retain set of LUME, as JSON lines or Parquet.

    Args:
        folder: Where the published files lie: one whose name holds "forget", and one with "retain"; of several the one
            with "train" in its name, too.
        tasks: Which of "Task1" (novels), "Task2" (made-up people), "Task3" (biographies).
        people: So many people, or documents, of each set, the first ones of the file; all by default.
        unseen: So many further ones of the forget set, which no model is to learn: who asks whether a model learned
            something needs such texts. As many as `people` by default, as far as there are more.

    Raises:
        InputError: Naming the folder, or the file with its line and field.
    """
    place = Path(folder).expanduser()
    if people is not None and people < 1:
        raise InputError(f"people is {people}; it must be at least 1.")
    if not place.is_dir():
        raise InputError(f"{place} is no folder; name the one with LUME's forget and retain files (.jsonl).")
    forget, retain = (_read(_file(place, part), tasks) for part in ("forget", "retain"))
    if people is None:
        return Split(forget, retain)
    return Split(
        people_of(forget, people),
        people_of(retain, people),
        people_of(forget, people if unseen is None else unseen, start=people),
    )


def _file(folder: Path, part: str) -> Path:
    files = sorted(
        path for ending in (".jsonl", ".parquet") for path in folder.rglob(f"*{ending}") if part in path.name
    )
    # The task's data set has small files for validation beside.
    chosen = [path for path in files if "train" in path.name] if len(files) > 1 else files
    if len(chosen) != 1:
        found = ", ".join(path.name for path in files) or "none"
        raise InputError(
            f'{folder} must hold one file with "{part}" in its name that ends in .jsonl or .parquet; it holds {found}.'
        )
    return chosen[0]


def _read(file: Path, tasks: Sequence[str]) -> tuple[Record, ...]:
    records = []
    for where, content in rows_of(file, _FIELDS):
        identifier = _IDENTIFIER.fullmatch(content["id"])
        if identifier is None:
            raise InputError(f'{where}: "id" is {content["id"]}; it must end in sc or qa and a number.')
        if content["task"] in tasks:
            kind = _KINDS[identifier["kind"]]
            records.append(
                Record(content["id"], identifier["person"], kind, content["task"], content["input"], content["output"])
            )
    if not records:
        raise InputError(f"{file} has no records of {', '.join(tasks)}.")
    return tuple(records)
