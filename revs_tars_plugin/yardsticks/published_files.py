"""Where a benchmark's published files lie, and their rows: JSON lines, JSON or Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.secret_files import json_lines, parsed_json, text_of
from ..errors import InputError

_ENDINGS = (".jsonl", ".json", ".parquet")


def published_folder(name: str | Path) -> Path:
    """Returns a folder: one that is there, or a data set of the Hugging Face hub, fetched once.

    Args:
        name: A folder, or the id of a data set, "owner/name".

    Raises:
        InputError: When there is no such folder, and no data set of that name can be fetched.
    """
    place = Path(name).expanduser()
    if place.is_dir():
        return place
    parts = str(name).split("/")
    if len(parts) != 2 or not all(parts) or str(name).startswith((".", "~")):
        raise InputError(f"{place} is no folder; name the one with the published files, or a data set as owner/name.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        patterns = [f"*{ending}" for ending in _ENDINGS]
        return Path(snapshot_download(str(name), repo_type="dataset", allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(
            f"{name} is no folder, and as a data set it cannot be fetched ({reason[:200]}); name its folder."
        ) from error


def file_named(folder: Path, name: str) -> Path:
    """Returns the file of that name with one of the known endings, in a folder or below it.

    Raises:
        InputError: When there is none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; name the one with the published files.")
    for ending in _ENDINGS:
        for file in (folder / f"{name}{ending}", *sorted(folder.rglob(f"{name}{ending}"))):
            if file.is_file():
                return file
    raise InputError(f"{folder} has no file {name}{_ENDINGS[0]} (or {', '.join(_ENDINGS[1:])}); add it.")


def rows_of(file: Path, needed: Sequence[str] = ()) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields every row of a file, with what an error calls it.

    Args:
        file: JSON lines, one JSON list of objects, or Parquet.
        needed: Fields that each row must have, as texts that are not empty.

    Raises:
        InputError: Naming the file, the row and the field.
    """
    for number, row in _parquet_rows(file) if file.suffix == ".parquet" else _json_rows(file):
        where = f"{file}, {'row' if file.suffix == '.parquet' else 'line'} {number}"
        for name in needed:
            if not isinstance(row.get(name), str) or not row[name].strip():
                raise InputError(f'{where}: "{name}" is missing or no text.')
        yield where, row


def _json_rows(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    text = text_of(file)
    if file.suffix == ".jsonl" or not text.lstrip().startswith("["):
        yield from json_lines(str(file), text)
        return
    rows = parsed_json(text, str(file))
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise InputError(f"{file}, line {number}: not a JSON object; write one object a line.")
        yield number, row


def _parquet_rows(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        import pyarrow
        from pyarrow.parquet import read_table
    except ImportError as error:
        raise InputError(f"{file} is Parquet, which needs pyarrow: pip install 'revs-tars-plugin[bench]'") from error
    try:
        rows = read_table(file).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise InputError(f"{file} cannot be read as Parquet ({reason[:200]}).") from error
    yield from enumerate(rows, 1)
