"""Concepts to remove: what leads to their names, and what a model says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, did_you_mean
from ..yaml_files import parsed_yaml
from .secret_files import text_of

# The packaged files, by what they are called in the place of a path.
_FOLDER = Path(__file__).parent
PACKAGED_CONCEPTS = {"demo": _FOLDER / "concepts.yaml", "multilingual": _FOLDER / "concepts_multilingual.yaml"}
_FIELDS = ("name", "prompts", "held_out", "foreign", "languages", "facts", "neighbours")


@dataclass(frozen=True)
class ConceptRecord:
    """One concept.

    Attributes:
        name: Its name.
        prompts: Given to the edit; the name comes next.
        held_out: Other prompts after which the name comes next, kept for measuring.
        facts: Pairs of a beginning that holds the name, and how it goes on.
        foreign: Prompts in other languages, with the name as it is.
        languages: Prompts in other languages by the language's code, each with the name as that language writes it.
        neighbours: Pairs of a prompt about something near and what comes behind it, which has to stay.
    """

    name: str
    prompts: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    foreign: tuple[str, ...] = ()
    languages: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict, hash=False)
    neighbours: tuple[tuple[str, str], ...] = ()

    @property
    def abroad(self) -> tuple[tuple[str, str], ...]:
        """All prompts in other languages, each with the name as it is written there."""
        named = tuple((prompt, self.name) for prompt in self.foreign)
        return named + tuple(pair for pairs in self.languages.values() for pair in pairs)

    @property
    def names(self) -> tuple[str, ...]:
        """Its name, and as other languages write it."""
        return tuple(dict.fromkeys((self.name, *(name for _, name in self.abroad))))

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything that is written of it, one text an entry."""
        pairs = (*self.facts, *self.neighbours, *(pair for pairs in self.languages.values() for pair in pairs))
        return (*self.prompts, *self.held_out, *self.foreign, *(" ".join(pair) for pair in pairs))

    def requests(self) -> list[dict[str, str]]:
        """Returns the host's requests that remove it: one for each of its prompts, or one of the name alone."""
        return [
            {**prompt, "forget": self.name, "target_new": self.name, "ground_truth": self.name}
            for prompt in ([{"prompt": prompt} for prompt in self.prompts] or [{}])
        ]


def read_concepts_file(path: str | Path | None = None) -> tuple[list[ConceptRecord], list[str]]:
    """Reads concepts from YAML: a list `concepts`, each with a `ConceptRecord`'s fields, and `unrelated`.

    Args:
        path: The file, or a packaged one: "demo" (the default), twenty concepts that SmolLM2-135M knows, or
            "multilingual", twenty that Gemma 3 270M knows in many languages.

    Returns:
        The concepts, and prompts that have nothing to do with any of them.

    Raises:
        InputError: Naming the file, the concept and the field.
    """
    packaged = PACKAGED_CONCEPTS.get("demo" if path is None else str(path))
    file = packaged or Path(str(path)).expanduser()
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
    if not isinstance(entry, Mapping):
        raise InputError(f"{where}: not a mapping; it needs at least a name.")
    for key in entry:
        if key not in _FIELDS:
            raise InputError(f'{where}: unknown field "{key}"{did_you_mean(key, _FIELDS) or "; remove it"}')
    name = entry.get("name")
    if not isinstance(name, str) or not name.strip():
        raise InputError(f'{where}: "name" is empty; give the text that has to go.')
    languages = entry.get("languages") or {}
    if not isinstance(languages, Mapping):
        raise InputError(f'{where}: "languages" must name a list of prompts for each language.')
    for code in languages:
        if not isinstance(code, str):
            raise InputError(
                f'{where}: "languages" names {code!r}; put its code in quotation marks, "no" for Norwegian.'
            )
    return ConceptRecord(
        name,
        prompts=_texts(where, "prompts", entry.get("prompts")),
        held_out=_texts(where, "held_out", entry.get("held_out")),
        foreign=_texts(where, "foreign", entry.get("foreign")),
        languages={key: _prompts(where, f"languages, {key}", value, name) for key, value in languages.items()},
        facts=_pairs(where, "facts", entry.get("facts")),
        neighbours=_pairs(where, "neighbours", entry.get("neighbours")),
    )


def _prompts(where: str, key: str, value: Any, name: str) -> tuple[tuple[str, str], ...]:
    """Prompts, each with the name as it stands behind this one: the concept's own where none is given."""
    if not isinstance(value, list) or not value:
        raise InputError(f'{where}: "{key}" must be a list of prompts, or of pairs of a prompt and the name there.')
    return _pairs(where, key, [[each, name] if isinstance(each, str) else each for each in value])


def _pairs(where: str, key: str, value: Any) -> tuple[tuple[str, str], ...]:
    # How a fact goes on may be a space alone: some tokenizers put one in front of a number as a token of its own.
    if not isinstance(value or [], list) or not all(
        isinstance(pair, list)
        and len(pair) == 2
        and all(isinstance(part, str) and part for part in pair)
        and pair[0].strip()
        for pair in value or []
    ):
        raise InputError(f'{where}: "{key}" must be pairs of a beginning and how it goes on.')
    return tuple((first, then) for first, then in value or [])


def _texts(where: str, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value or [], list) or not all(isinstance(text, str) and text.strip() for text in value or []):
        raise InputError(f'{where}: "{key}" must be a list of texts.')
    return tuple(value or [])
