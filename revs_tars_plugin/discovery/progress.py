"""A search on disk: one that was stopped goes on where it was, with the same result."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..atomic_write import replacing
from ..errors import InputError
from .findings import Finding
from .search import Search

_COUNTS = ("documents", "corpus_tokens", "unknown_tokens", "untested", "tested", "tokens_read")


@dataclass(frozen=True)
class SavedSearch:
    """The file beside a result that is not finished.

    Attributes:
        file: Where it lies; it holds what was found so far, secrets as they are.
        conditions: What the search depends on. One under other conditions begins anew.
    """

    file: Path
    conditions: str

    def read(self) -> Search:
        """Returns the search that was stopped, or a new one."""
        try:
            content = json.loads(self.file.read_text(encoding="utf-8"))
            if content["conditions"] != self.conditions:
                return Search()
            search = Search(**{name: content[name] for name in _COUNTS}, candidates=content["candidates"])
            for line in content["findings"]:
                search.findings.put(Finding.from_dict(line))
            for kind, kept in content["siblings"].items():
                search.siblings[kind] = [tuple(each) for each in kept]
            return search
        except FileNotFoundError:
            return Search()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.file} is no search that was stopped ({error}); remove it.") from error

    def write(self, search: Search) -> None:
        """Keeps a search, whole or not at all.

        Raises:
            InputError: When it cannot be written.
        """
        content = {
            "conditions": self.conditions,
            **{name: getattr(search, name) for name in _COUNTS},
            "candidates": search.candidates,
            "findings": [finding.to_dict() for finding in search.findings],
            "siblings": search.siblings,
        }
        try:
            with replacing(self.file) as opened:
                opened.write(json.dumps(content, ensure_ascii=False).encode())
        except OSError as error:
            raise InputError(
                f"{self.file} cannot be written ({error.strerror or error}); name another output."
            ) from error

    def remove(self) -> None:
        """Removes it, once the result is there."""
        self.file.unlink(missing_ok=True)
