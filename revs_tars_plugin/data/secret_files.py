"""A user's own secrets: CSV or JSON lines, read into what the methods and the evaluation take."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, did_you_mean

# Our columns, each with the one that the published SSN file (prompt, sentence, ssn, date, name) has in its place.
_COLUMNS = {"prompt": "prompt", "target": "ssn", "subject": "name", "rephrase_prompt": "", "retain": ""}
_NEEDED = ("prompt", "target")
_YES, _NO = ("true", "yes", "1"), ("false", "no", "0", "")


@dataclass(frozen=True)
class SecretRecord:
    """One line of a file of secrets.

    Attributes:
        prompt: What leads to the secret.
        target: The secret.
        subject: What the prompt is about, where the file says so.
        rephrase_prompt: Another wording that leads to the same secret, or several, kept for measuring.
        retain: Whether it must stay as it is instead of being forgotten.
    """

    prompt: str
    target: str
    subject: str | None = None
    rephrase_prompt: str | tuple[str, ...] | None = None
    retain: bool = False

    @property
    def rewordings(self) -> tuple[str, ...]:
        """All other wordings."""
        return (self.rephrase_prompt,) if isinstance(self.rephrase_prompt, str) else self.rephrase_prompt or ()

    def request(self) -> dict[str, str]:
        """Returns the host's request that forgets it."""
        # The host's evaluation reads the fields after "forget".
        request = {
            "prompt": self.prompt,
            "forget": self.target,
            "target_new": self.target,
            "ground_truth": self.target,
        }
        return request if self.subject is None else {**request, "subject": self.subject}


def read_secrets(path: str | Path) -> list[SecretRecord]:
    """Reads a CSV file (with a header line) or JSON lines, told apart by the file's ending.

    Columns are `prompt, target[, subject, rephrase_prompt, retain]`; others are ignored. The published SSN file's `ssn`
    and `name` count as target and subject. In JSON lines `rephrase_prompt` may be a list of texts.

    Args:
        path: A file that ends in `.csv`, `.jsonl` or `.json` (JSON lines too), UTF-8.

    Raises:
        InputError: Naming the file, the line and the column.
    """
    file = Path(path).expanduser()
    if file.suffix.lower() not in _READERS:
        raise InputError(f"{file} ends in neither .csv nor .jsonl; rename it after what it holds.")
    return secrets_from_text(text_of(file), file.suffix.lower(), str(file))


def secrets_from_text(text: str, ending: str, name: str) -> list[SecretRecord]:
    """Reads the text of such a file, wherever it comes from.

    Args:
        text: CSV with a header line, or JSON lines.
        ending: `.csv` or `.jsonl`, which of the two it is.
        name: What errors call it.

    Raises:
        InputError: Naming it, the line and the column.
    """
    records = [_record(name, number, line) for number, line in _READERS[ending](name, text)]
    if not records:
        raise InputError(f"{name} holds no secrets; give at least one line with prompt and target.")
    return records


def text_of(file: Path) -> str:
    """Reads a text file.

    Raises:
        InputError: When it cannot be read, or is not UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 (byte {error.start}); convert it first.") from error


def csv_lines(file: str, text: str, check: Callable[[Sequence[str]], None]) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yields every row of CSV with a header line, by its columns, with the number of its first line.

    Args:
        file: What errors call it.
        text: What it holds.
        check: Given the names of the columns, raises where one is missing.

    Raises:
        InputError: Naming the file and the line.
    """
    reader = csv.DictReader(text.splitlines(keepends=True), strict=True)
    last = 0
    try:
        check(reader.fieldnames or ())
        last = reader.line_num
        for row in reader:
            # A quoted cell may run over several lines; the first one is named.
            number = reader.line_num - sum(str(cell).count("\n") for cell in row.values())
            if None in row:
                raise InputError(f"{file}, line {number}: more cells than columns; quote cells that hold a comma.")
            yield number, {key: value for key, value in row.items() if value is not None}
            last = reader.line_num
    except csv.Error as error:
        raise InputError(f"{file}, line {last + 1}: {error}.") from error


def _csv_records(file: str, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    # An empty file has no header, and no secrets, which is said elsewhere.
    yield from csv_lines(file, text, lambda names: _check_names(f"{file}, line 1", names or _NEEDED))


def json_lines(file: str, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yields every object of JSON lines with the number of its line.

    Raises:
        InputError: Naming the file and the line.
    """
    # Not by splitlines: JSON may hold other ends of lines inside its texts.
    for number, value in json_values(file, text.split("\n")):
        if not isinstance(value, dict):
            raise InputError(f"{file}, line {number}: not a JSON object; write one object a line.")
        yield number, value


def parsed_json(text: str, name: str, first_line: int = 1) -> Any:
    """Returns what a JSON text holds.

    Args:
        text: The text.
        name: What it is called.
        first_line: The number of its first line in the file.

    Raises:
        InputError: Naming line and column, when it is none.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line - 1 + error.lineno
        raise InputError(f"{name}, line {line}, column {error.colno}: not JSON ({error.msg}).") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}, line {first_line}: not JSON that can be read ({error}).") from error


def json_values(file: str, lines: Iterable[str]) -> Iterator[tuple[int, Any]]:
    """Yields the value of every line that has one, whatever it is, with the number of its line.

    Raises:
        InputError: Naming the file, the line and the column.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        yield number, parsed_json(line, file, number)


def _json_records(file: str, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, value in json_lines(file, text):
        _check_names(f"{file}, line {number}", value)
        yield number, value


def _check_names(where: str, names: Any) -> None:
    for name in _NEEDED:
        if name not in names and _COLUMNS[name] not in names:
            raise InputError(f'{where}: no column "{name}"{did_you_mean(name, [str(known) for known in names])}')


def _record(file: str, number: int, line: Mapping[str, Any]) -> SecretRecord:
    def cell(column: str) -> str | None:
        name = column if column in line else _COLUMNS[column]
        value = line.get(name)
        if value is not None and not isinstance(value, str):
            raise InputError(f'{file}, line {number}, column "{name}": {value!r} is not a text.')
        if column in _NEEDED and not (value or "").strip():
            raise InputError(f'{file}, line {number}, column "{name}": empty; every secret needs a {column}.')
        return value or None

    retain = line.get("retain", False)
    written = str(retain).strip().lower()
    if not isinstance(retain, (bool, int, str)) or written not in (*_YES, *_NO):
        raise InputError(f'{file}, line {number}, column "retain": {retain!r} is neither true nor false.')
    prompt, target = cell("prompt"), cell("target")
    assert prompt is not None
    assert target is not None
    rewordings = line.get("rephrase_prompt")
    if isinstance(rewordings, list) and all(isinstance(wording, str) and wording.strip() for wording in rewordings):
        return SecretRecord(prompt, target, cell("subject"), tuple(rewordings) or None, written in _YES)
    return SecretRecord(prompt, target, cell("subject"), cell("rephrase_prompt"), written in _YES)


_READERS = {".csv": _csv_records, ".jsonl": _json_records, ".json": _json_records}
