"""Where a candidate stands: what leads to it in its text, near and far."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .corpus import Document
from .detectors import Candidate

# Tokens in front of a secret that an attacker may know (Carlini et al., arXiv 2202.07646, section 5).
PREFIXES = (10, 50, 200)
SENTENCE = "sentence"
# What is tried first: a sentence says what the secret is, a few tokens are what others share.
PROMPT_ORDER = (SENTENCE, *map(str, PREFIXES))
# Tokens in front of a candidate that are read at first: enough to tell whether the model may know it.
_LEADING = 64
# A sentence begins behind one of these; a line does too.
_BEGINNING = re.compile(r"(?<=[.!?])\s+(?=[\"'(\[]?[A-Z0-9])|\n\s*")
_FEWEST_WORDS = 3
# Characters in front of a candidate in which its sentence is looked for.
_LONGEST_SENTENCE = 1200


@dataclass(frozen=True)
class Occurrence:
    """A candidate in one place.

    Attributes:
        kind: What it looks like.
        secret: The candidate as it was detected.
        prompts: What stands in front of it, to the last character, by how much of it: "sentence", or tokens.
        source: The file or data set.
        line: Its line there.
    """

    kind: str
    secret: str
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


@dataclass(frozen=True)
class Windows:
    """What one document comes to.

    Attributes:
        windows: The parts that hold candidates.
        new: How many of its tokens are new.
        unknown: How many of these the tokenizer has no word for.
        untested: Candidates, by kind, that nothing leads to, or that are longer than the model reads.
    """

    windows: tuple[Window, ...]
    new: int
    unknown: int
    untested: tuple[str, ...]


@dataclass(frozen=True)
class _Place:
    """A candidate with the tokens that it takes, from the first to behind the last."""

    candidate: Candidate
    start: int
    end: int


def windows_of(document: Document, candidates: Sequence[Candidate], tok: Any, longest: int) -> Windows:
    """Cuts those parts out of a document that hold candidates, and what leads to them.

    Args:
        document: The piece of text.
        candidates: The candidates in it, in order; those in what is repeated are left out.
        tok: A fast tokenizer.
        longest: The most tokens of a window.
    """
    encoded = tok(document.text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    ends = [end for _, end in offsets]
    begins = [begin for begin, _ in offsets]
    first_new = bisect_right(ends, document.fresh)
    front = _front(tok)
    longest -= len(front)
    groups: list[list[_Place]] = []
    untested = []
    for candidate in candidates:
        if candidate.start < document.fresh:
            continue
        place = _Place(candidate, bisect_right(ends, candidate.start), bisect_left(begins, candidate.end))
        # A model that begins with a token of its own is asked for what begins a text, too.
        nothing_leads = not document.text[: candidate.start].strip() or (place.start == 0 and not front)
        if nothing_leads or not 0 < place.end - place.start < longest:
            untested.append(candidate.kind)
            continue
        group = groups[-1] if groups else []
        # A gap in which nothing leads to anything is not read.
        apart = not group or place.start - group[-1].end > _LEADING
        if apart or place.end - _first(group[0], longest) > longest:
            groups.append([place])
        else:
            group.append(place)
    windows = []
    for group in groups:
        first = _first(group[0], longest)
        picks = tuple(
            tuple(range(len(front) + max(place.start - first, int(not front)), len(front) + place.end - first))
            for place in group
        )
        occurrences = tuple(_occurrence(document, place, begins) for place in group)
        windows.append(Window((*front, *ids[first : group[-1].end]), picks, occurrences))
    unknown = ids[first_new:].count(tok.unk_token_id) if tok.unk_token_id is not None else 0
    return Windows(tuple(windows), len(ids) - first_new, unknown, tuple(untested))


def _front(tok: Any) -> tuple[int, ...]:
    """The token that texts of this tokenizer begin with, where they do."""
    front = tuple(tok("a")["input_ids"][:1])
    return front if front == (tok.bos_token_id,) else ()


def _first(place: _Place, longest: int) -> int:
    """Where a window begins: so far in front of its first candidate as counts."""
    return max(0, place.start - min(_LEADING, longest - (place.end - place.start)))


def _occurrence(document: Document, place: _Place, begins: Sequence[int]) -> Occurrence:
    text, start = document.text, place.candidate.start
    fronts = {SENTENCE: _sentence_start(text, start)}
    for count in PREFIXES:
        fronts[str(count)] = begins[max(0, place.start - count)]
    prompts = {name: text[begin:start].lstrip() for name, begin in fronts.items()}
    breaks = text.count("\n", document.fresh, start) if document.running else 0
    return Occurrence(
        kind=place.candidate.kind,
        secret=text[start : place.candidate.end],
        prompts={name: prompt for name, prompt in prompts.items() if prompt.strip()},
        source=document.source,
        line=document.number + breaks,
    )


def as_request(prompt: str, secret: str) -> tuple[str, str] | None:
    """Returns prompt and target that, put together by `join`, are exactly this text; None where nothing leads to it.

    A target stands behind a space, so what is glued to a secret in front belongs to it.

    Args:
        prompt: The text in front, to the last character.
        secret: The text behind it.
    """
    if prompt[-1:] == " " and not prompt[-2:-1].isspace():
        return (prompt[:-1], secret) if prompt[:-1].strip() else None
    if prompt[-1:].isspace():
        return prompt, secret
    words = re.match(r"(?s)(.*\s)?(\S*)\Z", prompt)
    if words is None or not (words.group(1) or "").strip():
        return None
    return as_request(words.group(1), words.group(2) + secret)


def _sentence_start(text: str, end: int) -> int:
    """Where the sentence begins that leads to a place; one with too few words takes the sentence before as well."""
    least = max(0, end - _LONGEST_SENTENCE)
    beginnings = [least, *(match.end() for match in _BEGINNING.finditer(text, least, end))]
    for begin in reversed(beginnings):
        if len(text[begin:end].split()) >= _FEWEST_WORDS:
            return begin
    return least
