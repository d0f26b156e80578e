"""Where a candidate stands: what leads to it in its text, near and far."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .corpus import Document
from .detectors import Candidate

# Tokens in front of a secret that an attacker may know (Carlini et al., arXiv 2202.07646, section 5).
PREFIXES = (10, 50, 200)
SENTENCE = "sentence"
# Tokens in front of a candidate that are read at first: enough to tell whether the model may know it.
_LEADING = 64
# A sentence begins behind one of these; a line does too.
_BEGINNING = re.compile(r"(?<=[.!?])\s+(?=[\"'(\[]?[A-Z0-9])|\n\s*")
_FEWEST_WORDS = 3
_SPACE = re.compile(r"\s")


@dataclass(frozen=True)
class Occurrence:
    """A candidate in one place.

    Attributes:
        kind: What it looks like.
        secret: The candidate as it was detected.
        target: The same with what is glued to it in front, so that it begins behind a space.
        prompts: What stands in front, by how much of it: "sentence", and numbers of tokens.
        source: The file or data set.
        line: Its line there.
    """

    kind: str
    secret: str
    target: str
    prompts: dict[str, str]
    source: str
    line: int


@dataclass(frozen=True)
class Window:
    """A part of a document that holds candidates, in tokens.

    Attributes:
        ids: The tokens.
        picks: For each candidate the positions of its tokens.
        occurrences: The candidates.
    """

    ids: tuple[int, ...]
    picks: tuple[tuple[int, ...], ...]
    occurrences: tuple[Occurrence, ...]


def windows_of(document: Document, candidates: Sequence[Candidate], tok: Any, longest: int) -> tuple[list[Window], int]:
    """Cuts those parts out of a document that hold candidates, and what leads to them.

    Args:
        document: The piece of text.
        candidates: The candidates in it, in order; those in what is repeated are left out.
        tok: A fast tokenizer.
        longest: The most tokens of a window.

    Returns:
        The windows, and how many tokens are new in the document.
    """
    encoded = tok(document.text, return_offsets_mapping=True, add_special_tokens=False)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    new = sum(end > document.fresh for _, end in offsets)
    places: list[tuple[int, Candidate, list[int]]] = []
    for candidate in candidates:
        start = _word_start(document.text, candidate.start)
        tokens = [place for place, (begin, end) in enumerate(offsets) if end > start and begin < candidate.end]
        # What begins the document has nothing that leads to it; what is glued to another is part of that.
        if candidate.start < document.fresh or not tokens or not document.text[:start].strip():
            continue
        if places and start < places[-1][1].end:
            continue
        places.append((start, candidate, tokens))
    windows: list[Window] = []
    group: list[tuple[int, Candidate, list[int]]] = []
    for place in places:
        # A gap in which nothing leads to anything is not read.
        apart = group and place[2][0] - group[-1][2][-1] > _LEADING
        if group and (apart or place[2][-1] - _first(group, longest) >= longest):
            windows.append(_window(document, group, ids, offsets, longest))
            group = []
        group.append(place)
    if group:
        windows.append(_window(document, group, ids, offsets, longest))
    return [_begun(window, tok) for window in windows], new


def _begun(window: Window, tok: Any) -> Window:
    """The window behind the token that texts of this tokenizer begin with, where they do."""
    front = tuple(tok("a")["input_ids"][:1])
    if front != (tok.bos_token_id,):
        return window
    picks = tuple(tuple(place + 1 for place in places) for places in window.picks)
    return Window(front + window.ids, picks, window.occurrences)


def _first(group: Sequence[tuple[int, Candidate, list[int]]], longest: int) -> int:
    """Where the window of a group begins: so far in front of its first candidate as counts."""
    tokens = group[0][2]
    return max(0, tokens[0] - max(1, min(_LEADING, longest - len(tokens) - 1)))


def _window(
    document: Document,
    group: Sequence[tuple[int, Candidate, list[int]]],
    ids: Sequence[int],
    offsets: Sequence[tuple[int, int]],
    longest: int,
) -> Window:
    first, last = _first(group, longest), min(group[-1][2][-1] + 1, _first(group, longest) + longest)
    occurrences, picks = [], []
    for start, candidate, tokens in group:
        occurrences.append(_occurrence(document, start, candidate, offsets, tokens[0]))
        picks.append(tuple(place - first for place in tokens if first < place < last))
    return Window(tuple(ids[first:last]), tuple(picks), tuple(occurrences))


def _occurrence(
    document: Document, start: int, candidate: Candidate, offsets: Sequence[tuple[int, int]], token: int
) -> Occurrence:
    text = document.text
    begins = {SENTENCE: _sentence_start(text, start)}
    for count in PREFIXES:
        begins[str(count)] = offsets[max(0, token - count)][0]
    prompts = {name: text[begin:start].strip() for name, begin in begins.items()}
    line = document.number + text.count("\n", document.fresh, start)
    return Occurrence(
        kind=candidate.kind,
        secret=text[candidate.start : candidate.end],
        target=text[start : candidate.end],
        prompts={name: prompt for name, prompt in prompts.items() if prompt},
        source=document.source,
        line=line,
    )


def _word_start(text: str, start: int) -> int:
    """Where the word begins that a place is in: a target stands behind a space."""
    while start > 0 and not _SPACE.match(text[start - 1]):
        start -= 1
    return start


def _sentence_start(text: str, end: int) -> int:
    """Where the sentence begins that leads to a place; one with too few words takes the sentence before as well."""
    # A sentence that leads to a secret is not longer than what an attacker may know of the text.
    least = max(0, end - 1200)
    beginnings = [least, *(match.end() for match in _BEGINNING.finditer(text, least, end))]
    for begin in reversed(beginnings):
        if len(text[begin:end].split()) >= _FEWEST_WORDS:
            return begin
    return least
