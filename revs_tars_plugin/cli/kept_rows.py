"""Rows of a long table on disk, so that a run that was stopped goes on with the next one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from ..atomic_write import replacing
from ..errors import InputError

_ENDING = ".row.json"
_PACKAGE = Path(__file__).resolve().parents[1]
_Row = TypeVar("_Row")


@dataclass(frozen=True)
class KeptRows(Generic[_Row]):
    """The rows that a folder keeps.

    Attributes:
        folder: Where they lie; made where it is missing.
        conditions: What every row depends on. A row that was measured under others is measured anew.
        row_of: Makes a row, a dataclass, of its fields as JSON has them.
    """

    folder: Path
    conditions: str
    row_of: Callable[[dict[str, Any]], _Row]

    def read(self, names: Mapping[str, str]) -> dict[str, _Row]:
        """Returns the rows that were measured under the same conditions.

        Args:
            names: The names of rows that are wanted, each with what it alone depends on.

        Raises:
            InputError: When a file cannot be read.
        """
        rows = {}
        for name, settings in names.items():
            file = self._file(name)
            if not file.is_file():
                continue
            try:
                content = json.loads(file.read_text(encoding="utf-8"))
                if content["conditions"] == self._fingerprint(settings):
                    rows[name] = self.row_of(content["row"])
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(f"{file} is no row that was kept ({error}); remove it, or name another -o.") from error
        return rows

    def write(self, name: str, row: _Row, settings: str) -> None:
        """Keeps a row, whole or not at all.

        Args:
            name: Its name.
            row: What was measured; of one that failed nothing is to be kept.
            settings: What it alone depends on.

        Raises:
            InputError: When it cannot be written.
        """
        file = self._file(name)
        try:
            with replacing(file) as opened:
                content = {"conditions": self._fingerprint(settings), "row": asdict(row)}  # type: ignore[call-overload]
                opened.write(json.dumps(content, indent=1).encode())
        except OSError as error:
            raise InputError(f"{file} cannot be written ({error.strerror or error}); name another folder.") from error

    def remove(self) -> None:
        """Removes all rows, and the folder if nothing else is in it."""
        for file in self.folder.glob(f"*{_ENDING}"):
            file.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _fingerprint(self, settings: str) -> str:
        return hashlib.sha256(f"{self.conditions}\n{settings}".encode()).hexdigest()

    def _file(self, row: str) -> Path:
        return self.folder / f"{file_name(row)}{_ENDING}"


def conditions_of(*parts: Any) -> str:
    """Returns what rows depend on as one text: the package's own code, the versions beside it, and what is given."""
    import torch
    import transformers

    code = hashlib.sha256()
    for file in sorted(_PACKAGE.rglob("*.py")):
        code.update(file.read_bytes())
    content = (code.hexdigest(), torch.__version__, transformers.__version__, *parts)
    return hashlib.sha256(repr(content).encode()).hexdigest()


def content_of(file: Path | None) -> str:
    """Returns what tells a file's content from another's; of one that cannot be read its name."""
    try:
        return "" if file is None else hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return str(file)


def files_in(checkpoint: Path | None) -> list[tuple[str, int, int]]:
    """Returns what changes when a checkpoint is written again in its place: names, sizes and times of its files."""
    if checkpoint is None:
        return []
    files = checkpoint.expanduser().glob("*")
    return sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)


def file_name(row: str) -> str:
    """Returns a row's name as that of a file."""
    return "".join(letter if letter.isalnum() or letter in "-.=" else "-" for letter in row)
