"""Rows of a benchmark on disk, so that a run that was stopped goes on with the next one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atomic_write import replacing
from ..errors import InputError

if TYPE_CHECKING:
    from ..yardsticks import Row

_ENDING = ".row.json"
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class BenchmarkRows:
    """The rows that a folder keeps.

    Attributes:
        folder: Where they lie; made where it is missing.
        conditions: What every row depends on. A row that was measured under others is measured anew.
    """

    folder: Path
    conditions: str

    def read(self, names: Mapping[str, str]) -> dict[str, Row]:
        """Returns the rows that were measured under the same conditions; one that failed is not among them.

        Args:
            names: The names of rows that are wanted, each with what it alone depends on.

        Raises:
            InputError: When a file cannot be read.
        """
        from ..yardsticks import Row

        rows = {}
        for name, settings in names.items():
            file = self._file(name)
            if not file.is_file():
                continue
            try:
                content = json.loads(file.read_text(encoding="utf-8"))
                same = content["conditions"] == self._fingerprint(settings)
                if same:
                    scores = {metric: (mean, records) for metric, (mean, records) in content["row"]["scores"].items()}
                    rows[name] = Row(**{**content["row"], "scores": scores})
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(
                    f"{file} is no row of a benchmark ({error}); remove it, or name another -o."
                ) from error
        return rows

    def write(self, row: Row, settings: str) -> None:
        """Keeps a row, whole or not at all.

        Args:
            row: What was measured; nothing is kept of one that failed.
            settings: What it alone depends on.

        Raises:
            InputError: When it cannot be written.
        """
        if row.error is not None:
            return
        file = self._file(row.name)
        try:
            with replacing(file) as opened:
                content = {"conditions": self._fingerprint(settings), "row": asdict(row)}
                opened.write(json.dumps(content, indent=1).encode())
        except OSError as error:
            raise InputError(f"{file} cannot be written ({error.strerror or error}); name another folder.") from error

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


def files_in(checkpoint: Path | None) -> list[tuple[str, int, int]]:
    """Returns what changes when a checkpoint is written again in its place: names, sizes and times of its files."""
    if checkpoint is None:
        return []
    files = checkpoint.expanduser().glob("*")
    return sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)


def file_name(row: str) -> str:
    """Returns a row's name as that of a file."""
    return "".join(letter if letter.isalnum() or letter in "-.=" else "-" for letter in row)
