"""Concepts to remove: what leads to their names, and what a model says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, did_you_mean
from ..yaml_files import parsed_yaml
from .secret_files import text_of

_PACKAGED = Path(__file__).parent / "concepts.yaml"
_LISTS = ("prompts", "held_out", "foreign")


@dataclass(frozen=True)
class ConceptRecord:
    """One concept.

    Attributes:
        name: Its name.
        prompts: Given to the edit; the name comes next.
        held_out: Other prompts after which the name comes next, kept for measuring.
        facts: Pairs of a beginning that holds the name, and how it goes on.
        foreign: Prompts in other languages.
    """

    name: str
    prompts: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    foreign: tuple[str, ...] = ()

    def requests(self) -> list[dict[str, str]]:
        """Returns the host's requests that remove it, one for each of its prompts."""
        return [
            {"prompt": prompt, "forget": self.name, "target_new": self.name, "ground_truth": self.name}
            for prompt in self.prompts
        ]


def read_concepts_file(path: str | Path | None = None) -> tuple[list[ConceptRecord], list[str]]:
    """Reads concepts from YAML: `concepts`, a list of `name, prompts[, held_out, facts, foreign]`, and `unrelated`.

    Args:
        path: The file; by default the packaged one with twenty concepts that SmolLM2-135M knows.

    Returns:
        The concepts, and prompts that have nothing to do with any of them.

    Raises:
        InputError: Naming the file, the concept and the field.
    """
    file = Path(path).expanduser() if path is not None else _PACKAGED
    return concepts_from_text(text_of(file), str(file))


def concepts_from_text(text: str, name: str) -> tuple[list[ConceptRecord], list[str]]:
    """Reads the text of such a file; errors call it by `name`.

    Raises:
        InputError: Naming the concept and the field.
    """
    content = parsed_yaml(text, name)
    entries = content.get("concepts") if isinstance(content, Mapping) else None
    if not isinstance(entries, list) or not entries:
        raise InputError(f'{name} has no list "concepts"; give at least one with name and prompts.')
    concepts = [_concept(f"{name}, concept {number}", entry) for number, entry in enumerate(entries, 1)]
    return concepts, list(_texts(name, "unrelated", content.get("unrelated")))


def _concept(where: str, entry: Any) -> ConceptRecord:
    known = ("name", "facts", *_LISTS)
    if not isinstance(entry, Mapping):
        raise InputError(f"{where}: not a mapping; it needs name and prompts.")
    for key in entry:
        if key not in known:
            raise InputError(f'{where}: unknown field "{key}"{did_you_mean(key, known) or "; remove it"}')
    name = entry.get("name")
    if not isinstance(name, str) or not name.strip():
        raise InputError(f'{where}: "name" is empty; give the text that has to go.')
    lists = {key: _texts(where, key, entry.get(key)) for key in _LISTS}
    if not lists["prompts"]:
        raise InputError(f'{where}: "prompts" is empty; give at least one text after which the name comes.')
    facts = entry.get("facts") or []
    # How a fact goes on may be a space alone: some tokenizers put one in front of a number as a token of its own.
    if not isinstance(facts, list) or not all(
        isinstance(fact, list) and len(fact) == 2 and all(isinstance(part, str) and part for part in fact)
        for fact in facts
    ):
        raise InputError(f'{where}: "facts" must be pairs of a beginning and how it goes on.')
    return ConceptRecord(name, facts=tuple((first, then) for first, then in facts), **lists)


def _texts(where: str, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value or [], list) or not all(isinstance(text, str) and text.strip() for text in value or []):
        raise InputError(f'{where}: "{key}" must be a list of texts.')
    return tuple(value or [])
