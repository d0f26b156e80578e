"""Text to search: files of any text, JSON lines, CSV, or a Hugging Face data set, a piece at a time."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from ..data.secret_files import json_values, parsed_json
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
# What a file of bytes betrays itself by.
_NO_TEXT = "\x00"
# How a data set is named, so that a folder that is not there is not looked for elsewhere.
HUB = "hf://"


class _MissingFieldError(InputError):
    """A record lacks a field that was asked for: what was asked is wrong, not the file."""


@dataclass(frozen=True)
class Document:
    """A piece of text.

    Attributes:
        source: The file or data set that it comes from.
        number: Its line there, or its row; of running text the first line that is new.
        text: The text.
        fresh: Where what is new begins; in front of it stands what the piece before ended with.
        running: Whether its line breaks are those of its source: not those in a record.
    """

    source: str
    number: int
    text: str
    fresh: int = 0
    running: bool = False


def read_corpus(names: Sequence[str | Path], fields: Sequence[str] = ()) -> Iterator[Document]:
    """Yields the pieces of files, folders and data sets, one after the other.

    No more than a piece, or a record, is in memory; but a JSON list is read whole.

    Args:
        names: Files, folders (all text files in them; what cannot be read is left out with a warning), or data sets of
            the hub as hf://owner/name.
        fields: The fields of a record that make its text, in this order; by default those that commonly do ("text";
            "prompt" with "completion"), else all that hold a text.

    Raises:
        InputError: When one is not there, is no text, lacks a field, or there is nothing to read.
    """
    if not names:
        raise InputError(f"No corpus is given; name files, folders, or data sets as {HUB}owner/name.")
    for name in names:
        path = Path(name).expanduser()
        if str(name).startswith(HUB):
            records = _of_data_set(str(name), fields)
        elif path.is_dir():
            records = _of_folder(path, fields)
        elif path.exists():
            records = _of_file(path, fields)
        else:
            raise InputError(f"{path} is neither file nor folder; name a corpus, or a data set as {HUB}owner/name.")
        for record in records:
            yield from _pieces(record)


def files_of(names: Sequence[str | Path]) -> list[Path]:
    """Returns the files that a corpus is read from, in their order."""
    files = []
    for path in (Path(name).expanduser() for name in names if not str(name).startswith(HUB)):
        files += _files_in(path) if path.is_dir() else [path] if path.exists() else []
    return files


def texts_as_documents(texts: Iterable[str]) -> Iterator[Document]:
    """Yields texts as they are, numbered from 1, long ones in pieces."""
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise InputError(f"Text {number} of the corpus is a {type(text).__name__}; give texts.")
        yield from _pieces(Document("texts", number, _encodable(text)))


def _pieces(document: Document) -> Iterator[Document]:
    """A long text in pieces that end where a word does, each with the end of the one before in front."""
    text, start = document.text, document.fresh
    if len(text) <= _PIECE + _REPEATED:
        yield document
        return
    while start < len(text):
        end = _cut(text, start + _PIECE) if len(text) - start > _PIECE else len(text)
        begin = max(0, start - _REPEATED)
        number = document.number + (text.count("\n", document.fresh, start) if document.running else 0)
        yield replace(document, number=number, text=text[begin:end], fresh=start - begin)
        start = end


def _cut(text: str, end: int) -> int:
    """Where a text may be cut, at a place or a little before: behind a line, else behind a word."""
    least = end - _REPEATED
    for mark in ("\n", " ", "\t"):
        place = text.rfind(mark, least, end)
        if place >= 0:
            return place + 1
    return end


def _files_in(folder: Path) -> list[Path]:
    """All files in a folder and below that are not hidden."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )


def _of_folder(folder: Path, fields: Sequence[str]) -> Iterator[Document]:
    read = 0
    for file in _files_in(folder):
        try:
            for document in _of_file(file, fields):
                read += 1
                yield document
        except _MissingFieldError:
            raise
        except InputError as error:
            logger.warning("%s The rest of it is left out.", error)
    if not read:
        raise InputError(f"{folder} holds no text file; name a folder with the corpus.")


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
                yield from _running(file, opened)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is no UTF-8 text (byte {error.start}); convert it, or leave it out.") from error


def _running(file: Path, opened: TextIO) -> Iterator[Document]:
    """Running text, some thousand characters at a time; a word is not cut, unless it is longer than that."""
    waiting, fresh, number = "", 0, 1
    while more := opened.read(_PIECE):
        if _NO_TEXT in more:
            raise InputError(f"{file}, line {number}: no text; leave the file out.")
        waiting += more
        end = _cut(waiting, len(waiting)) if len(more) == _PIECE else len(waiting)
        if end <= fresh:
            end = len(waiting)
        yield Document(str(file), number, waiting[:end], fresh, running=True)
        number += waiting.count("\n", fresh, end)
        begin = max(0, end - _REPEATED)
        waiting, fresh = waiting[begin:], end - begin
    if len(waiting) > fresh:
        yield Document(str(file), number, waiting, fresh, running=True)


def _rows(file: Path, opened: TextIO, fields: Sequence[str], delimiter: str) -> Iterator[Document]:
    reader = csv.DictReader(opened, delimiter=delimiter)
    last = 1
    try:
        for row in reader:
            cells: dict[str, Any] = {str(name): cell for name, cell in row.items()}
            yield Document(str(file), last + 1, _text_of(cells, fields, f"{file}, line {last + 1}"))
            last = reader.line_num
    except csv.Error as error:
        raise InputError(f"{file}, line {last + 1}: {error}.") from error


def _objects(file: Path, opened: Iterable[str], fields: Sequence[str]) -> Iterator[Document]:
    for number, value in json_values(str(file), opened):
        yield Document(str(file), number, _text_of(value, fields, f"{file}, line {number}"))


def _json(file: Path, opened: TextIO, fields: Sequence[str]) -> Iterator[Document]:
    """One value, a list of them, or JSON lines under this ending as well."""
    start = opened.readline().strip()
    opened.seek(0)
    try:
        one_a_line = isinstance(json.loads(start), dict) and start.startswith("{")
    except (ValueError, RecursionError):
        one_a_line = False
    if one_a_line:
        yield from _objects(file, opened, fields)
        return
    value = parsed_json(opened.read(), str(file))
    for number, row in enumerate(value if isinstance(value, list) else [value], 1):
        yield Document(str(file), number, _text_of(row, fields, f"{file}, entry {number}"))


def _of_data_set(name: str, fields: Sequence[str]) -> Iterator[Document]:
    try:
        import datasets
    except ImportError as error:
        raise InputError(f"{name} is a data set, which needs the package datasets: pip install datasets.") from error
    try:
        rows = iter(datasets.load_dataset(name.removeprefix(HUB), split="train", streaming=True))
        row = next(rows, None)
    except Exception as error:  # the library raises errors of many kinds for "not there"
        raise InputError(f"{name} cannot be read as a data set ({type(error).__name__}); name files.") from error
    number = 0
    while row is not None:
        number += 1
        yield Document(name, number, _text_of(row, fields, f"{name}, row {number}"))
        row = next(rows, None)


def _text_of(value: Any, fields: Sequence[str], where: str) -> str:
    """A record's text: chosen fields, those that commonly hold it, or everything in it that is a text."""
    if fields or isinstance(value, Mapping):
        if not isinstance(value, Mapping):
            raise InputError(f"{where}: no object with fields; leave --field out.")
        missing = [name for name in fields if not isinstance(value.get(name), str)]
        if missing:
            raise _MissingFieldError(f'{where}: "{missing[0]}" is missing or no text; name other fields.')
        known = (names for names in _TEXT_FIELDS if all(isinstance(value.get(name), str) for name in names))
        if names := fields or next(known, ()):
            return _encodable(" ".join(value[name] for name in names))
    return _encodable(" ".join(_texts_in(value)))


def _encodable(text: str) -> str:
    """The text without halves of characters, which JSON may hold and no file can."""
    return text.encode("utf-8", "replace").decode()


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts_in(part)
    elif isinstance(value, Sequence):
        for part in value:
            yield from _texts_in(part)
