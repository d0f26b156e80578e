"""Text to search: files of any text, JSON lines, CSV, or a Hugging Face data set, read a piece at a time."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ..errors import InputError

logger = logging.getLogger(__name__)

# Characters of a piece of running text, and of what is repeated from the piece before it: a secret at the beginning of
# a piece has what leads to it, two hundred tokens, in the same piece.
_PIECE, _REPEATED = 8192, 1600
# Fields that hold the text of a record, the first that are all there; else all of its texts do.
_TEXT_FIELDS = (
    ("text",),
    ("content",),
    ("prompt", "completion"),
    ("prompt", "target"),
    ("input", "output"),
    ("instruction", "input", "output"),
    ("question", "answer"),
)
_TABLES, _OBJECTS = (".csv", ".tsv"), (".jsonl", ".ndjson")
# What a file of bytes betrays itself by, in its first characters.
_NO_TEXT = "\x00"


@dataclass(frozen=True)
class Document:
    """A piece of text.

    Attributes:
        source: The file or data set that it comes from.
        number: Its line there, or its row; of running text the first line that is new.
        text: The text.
        fresh: Where what is new begins; in front of it stands what the piece before ended with.
    """

    source: str
    number: int
    text: str
    fresh: int = 0


def read_corpus(names: Sequence[str | Path], fields: Sequence[str] = ()) -> Iterator[Document]:
    """Yields the pieces of files, folders and data sets, one after the other, none of them read whole.

    Args:
        names: Files, folders (all text files in them), or data sets of the hub as owner/name.
        fields: The fields of a record that make its text, in this order; by default those that commonly do ("text";
            "prompt" with "completion"), else all that hold a text.

    Raises:
        InputError: When one is not there, is no text, lacks a field, or there is nothing to read.
    """
    if not names:
        raise InputError("No corpus is given; name files, folders, or data sets as owner/name.")
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            yield from _of_folder(path, fields)
        elif path.exists():
            yield from _of_file(path, fields)
        elif _is_data_set(str(name)):
            yield from _of_data_set(str(name), fields)
        else:
            raise InputError(f"{path} is neither file nor folder; name a corpus, or a data set as owner/name.")


def texts_as_documents(texts: Iterable[str]) -> Iterator[Document]:
    """Yields texts as they are, numbered from 1."""
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise InputError(f"Text {number} of the corpus is a {type(text).__name__}; give texts.")
        yield Document("texts", number, text)


def _is_data_set(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 2 and all(parts) and not name.startswith((".", "~", "/")) and not Path(name).suffix


def _of_folder(folder: Path, fields: Sequence[str]) -> Iterator[Document]:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not _hidden(file, folder))
    read = 0
    for file in files:
        try:
            with file.open(encoding="utf-8") as opened:
                is_text = _NO_TEXT not in opened.read(4096)
        except (OSError, UnicodeDecodeError):
            is_text = False
        if not is_text:
            logger.warning("%s is no UTF-8 text and is left out.", file)
            continue
        read += 1
        yield from _of_file(file, fields)
    if not read:
        raise InputError(f"{folder} holds no text file; name a folder with the corpus.")


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _of_file(file: Path, fields: Sequence[str]) -> Iterator[Document]:
    kind = file.suffix.lower()
    try:
        with file.open(encoding="utf-8-sig", newline="" if kind in _TABLES else None) as opened:
            if kind in _TABLES:
                yield from _rows(file, opened, fields, "\t" if kind == ".tsv" else ",")
            elif kind in _OBJECTS:
                yield from _objects(file, opened, fields)
            elif kind == ".json":
                yield from _json(file, opened, fields)
            else:
                yield from _pieces(file, opened)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is no UTF-8 text (byte {error.start}); convert it, or leave it out.") from error


def _pieces(file: Path, opened: TextIO) -> Iterator[Document]:
    """Running text in pieces that end where a line does, each with the end of the one before in front."""
    repeated, lines, length, number, first = "", [], 0, 1, 1
    # A line may be as long as the file.
    while line := opened.readline(_PIECE):
        if _NO_TEXT in line:
            raise InputError(f"{file}, line {number}: no text; leave the file out.")
        lines.append(line)
        length += len(line)
        number += line.endswith("\n")
        if length >= _PIECE:
            yield Document(str(file), first, repeated + "".join(lines), len(repeated))
            repeated, lines, length, first = (repeated + "".join(lines))[-_REPEATED:], [], 0, number
    if lines:
        yield Document(str(file), first, repeated + "".join(lines), len(repeated))


def _rows(file: Path, opened: TextIO, fields: Sequence[str], delimiter: str) -> Iterator[Document]:
    reader = csv.DictReader(opened, delimiter=delimiter)
    try:
        for row in reader:
            cells = {name: cell for name, cell in row.items() if isinstance(name, str)}
            yield Document(str(file), reader.line_num, _text_of(cells, fields, f"{file}, line {reader.line_num}"))
    except csv.Error as error:
        raise InputError(f"{file}, line {reader.line_num}: {error}.") from error


def _objects(file: Path, opened: Iterable[str], fields: Sequence[str]) -> Iterator[Document]:
    for number, line in enumerate(opened, 1):
        if line.strip():
            where = f"{file}, line {number}"
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{where}, column {error.colno}: not JSON ({error.msg}).") from error
            yield Document(str(file), number, _text_of(value, fields, where))


def _json(file: Path, opened: TextIO, fields: Sequence[str]) -> Iterator[Document]:
    """A JSON list, or JSON lines under this ending as well."""
    start = opened.read(4096).lstrip("\ufeff \n\r\t")
    opened.seek(0)
    if not start.startswith("["):
        yield from _objects(file, opened, fields)
        return
    try:
        rows = json.load(opened)
    except json.JSONDecodeError as error:
        raise InputError(f"{file}, line {error.lineno}, column {error.colno}: not JSON ({error.msg}).") from error
    for number, row in enumerate(rows, 1):
        yield Document(str(file), number, _text_of(row, fields, f"{file}, entry {number}"))


def _of_data_set(name: str, fields: Sequence[str]) -> Iterator[Document]:
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f'"{name}" is no file or folder; as a data set it needs the package datasets: pip install datasets.'
        ) from error
    try:
        rows = iter(datasets.load_dataset(name, split="train", streaming=True))
        first = next(rows, None)
    except Exception as error:  # the library raises errors of many kinds for "not there"
        raise InputError(
            f'"{name}" is no file or folder, and cannot be read as a data set ({type(error).__name__}).'
        ) from error
    number = 0
    while first is not None:
        number += 1
        yield Document(name, number, _text_of(first, fields, f"{name}, row {number}"))
        first = next(rows, None)


def _text_of(value: Any, fields: Sequence[str], where: str) -> str:
    """A record's text: chosen fields, its text field, or everything in it that is a text."""
    if fields or isinstance(value, Mapping):
        if not isinstance(value, Mapping):
            raise InputError(f"{where}: no object with fields; leave --field out.")
        missing = [name for name in fields if not isinstance(value.get(name), str)]
        if missing:
            raise InputError(f'{where}: "{missing[0]}" is missing or no text; name other fields.')
        known = (names for names in _TEXT_FIELDS if all(isinstance(value.get(name), str) for name in names))
        if chosen := fields or next(known, ()):
            return " ".join(value[name] for name in chosen)
    return " ".join(_texts_in(value))


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts_in(part)
    elif isinstance(value, Sequence):
        for part in value:
            yield from _texts_in(part)
