"""Patterns of what may be a secret: our own beside the libraries', and those that a user adds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import regex

from ..data.secret_files import text_of
from ..errors import InputError, did_you_mean
from ..yaml_files import parsed_yaml

# What stands for the secret where a pattern holds more than it.
_GROUP = "secret"
# Seconds that one pattern may take for one piece of a corpus.
_PATIENCE = 5.0
_PARTS = ("patterns", "words", "ignore")
# A pattern that takes either of these whole takes anything.
_ORDINARY = ("It was a bright cold day in April.", "two words")

_MONTHS = r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_DATE_NUMBERS = r"\d{4}-\d\d-\d\d|\d{1,2}[/.]\d{1,2}[/.]\d{4}"
_DATE = rf"(?:{_MONTHS} \d{{1,2}},? \d{{4}}|\d{{1,2}} {_MONTHS} \d{{4}}|{_DATE_NUMBERS})"
_YEARS = r"(?:1\d{3}|20\d\d)(?:[ /,\u2013-]+(?:1\d{3}|20\d\d))+(?!\d)"
# Kinds that no library has, or only in a form that is valid: a leaked number need not be.
GENERIC = {
    # Seven digits or more, whatever stands between them; no date, no years.
    "NUMBER": rf"(?<![\w.,-])(?!{_DATE}|{_YEARS})(?:\+\d{{1,3}} ?)?\(?\d(?:(?:\) ?|[ .\-/])?\d){{6,}}(?!\w)",
    "PRIVATE_KEY": r"-----BEGIN [A-Z ]*PRIVATE KEY-----[A-Za-z0-9+/=\s]{40,4000}?-----END [A-Z ]*PRIVATE KEY-----",
    # Of any host: the libraries know public ones.
    "URL": r"https?://[^\s<>\"'\])]*[^\s<>\"'\]).,;:!?]",
    # A word of letters and at least three digits.
    "CODE": r"\b(?=\w*[A-Za-z])(?=\w*\d\w*\d\w*\d)[A-Za-z0-9]{8,}\b",
    "USER_NAME": r"\b[A-Za-z][A-Za-z0-9.]*(?:_[A-Za-z0-9.]+)*_\d+\b",
    # An address of the United States: a number, a street, a state and a postal code.
    "STREET_ADDRESS": r"\b\d{1,6} [A-Z0-9][^\n;:!?]{4,80}?,? [A-Z]{2},? \d{5}(?:-\d{4})?\b",
    "BIRTH_DATE": rf"\b(?i:born|birth)\b[^\n]{{0,60}}?(?P<{_GROUP}>{_DATE})",
}


@dataclass(frozen=True)
class Patterns:
    """Regular expressions by kind, and what is never a secret.

    Attributes:
        by_kind: A kind may have several.
        ignored: Texts that are left out wherever they are found, in small letters.
        patience: Seconds that one of them may take for one piece of text; None where they are known to be fast.
    """

    by_kind: Mapping[str, Sequence[str]]
    ignored: frozenset[str] = field(default_factory=frozenset)
    patience: float | None = _PATIENCE

    @cached_property
    def _compiled(self) -> list[tuple[str, regex.Pattern]]:
        return [(kind, regex.compile(each)) for kind, patterns in self.by_kind.items() for each in patterns]

    def spans(self, text: str) -> Iterator[tuple[str, int, int]]:
        """Yields kind, beginning and end of everything that matches.

        Raises:
            InputError: When a pattern takes too long for one piece of text.
        """
        for kind, pattern in self._compiled:
            group = _GROUP if _GROUP in pattern.groupindex else 0
            try:
                for match in pattern.finditer(text, timeout=self.patience):
                    if match.end(group) > match.start(group):
                        yield kind, match.start(group), match.end(group)
            except TimeoutError as error:
                raise InputError(
                    f'The pattern of "{kind}" takes more than {self.patience:g} s for one piece of text; simplify it.'
                ) from error


def generic_patterns() -> Patterns:
    """Returns the patterns of kinds that no library has."""
    return Patterns({kind: (pattern,) for kind, pattern in GENERIC.items()}, patience=None)


def read_patterns(path: str | Path) -> Patterns:
    """Reads a user's own patterns: YAML with `patterns`, `words` and `ignore`.

    `patterns` has a regular expression, or a list of them, a kind; where it has a group named `secret`, that is what is
    taken. `words` has a list of words or names a kind, found whole and in any capitals. `ignore` is a list of texts
    that are no secrets, such as the address of one's own support.

    Args:
        path: The file.

    Raises:
        InputError: Naming the file and the field.
    """
    file = Path(path).expanduser()
    content = parsed_yaml(text_of(file), str(file))
    if not isinstance(content, dict) or not content:
        raise InputError(f"{file} must hold {', '.join(_PARTS)}, each a mapping or list; see docs/discovery.md.")
    unknown = [name for name in content if name not in _PARTS]
    if unknown:
        raise InputError(
            f'{file} has "{unknown[0]}"; it may have {", ".join(_PARTS)}{did_you_mean(unknown[0], _PARTS)}'
        )
    by_kind: dict[str, list[str]] = {}
    for kind, patterns in _lists(file, content, "patterns"):
        for pattern in patterns:
            by_kind.setdefault(kind, []).append(_checked(f'{file}, patterns, "{kind}"', pattern))
    for kind, words in _lists(file, content, "words"):
        longest_first = sorted(words, key=len, reverse=True)
        by_kind.setdefault(kind, []).append(rf"(?i)(?<!\w)(?:{'|'.join(map(regex.escape, longest_first))})(?!\w)")
    ignored = content.get("ignore") or []
    if not isinstance(ignored, list) or not all(isinstance(text, str) and text.strip() for text in ignored):
        raise InputError(f'{file}, "ignore": it must be a list of texts.')
    return Patterns(by_kind, frozenset(text.strip().lower() for text in ignored))


def _lists(file: Path, content: Mapping[str, Any], part: str) -> Iterator[tuple[str, list[str]]]:
    kinds = content.get(part) or {}
    if not isinstance(kinds, dict):
        raise InputError(f'{file}, "{part}": it must name kinds, each with a list.')
    for kind, values in kinds.items():
        values = [values] if isinstance(values, str) else values
        if not isinstance(kind, str) or not isinstance(values, list) or not values:
            raise InputError(f'{file}, {part}, "{kind}": it must be a text, or a list of texts.')
        if not all(isinstance(value, str) and value.strip() for value in values):
            raise InputError(f'{file}, {part}, "{kind}": it must be a text, or a list of texts.')
        yield kind, values


def _checked(where: str, pattern: str) -> str:
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise InputError(f"{where}: no regular expression ({error}).") from error
    if compiled.fullmatch("") or all(compiled.fullmatch(text) for text in _ORDINARY):
        raise InputError(f"{where}: it matches everything; say what the secret looks like.")
    return pattern
