"""How a concept's name may stand in a text: each of its spellings as tokens, in a few frames, beside made-up names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from ..requests.made_up import MadeUp
from ..requests.reading import tokens_around
from .concepts import Concept

# What stands in front of a name inside a sentence, and right in front of one where no space does.
_WORDS = ("The story of ", "I know ", "It was ", "This is about ", "and ")
_SIGNS = ('"', "(", "\n", ".")
# Made-up names whose mean state a name is compared with.
_MADE_UP = 12

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Spelling:
    """One way in which a name is written.

    Attributes:
        tokens: Its tokens.
        named: Beginnings of texts that end with it, as token ids.
        made_up: For each of these the same with made-up names in its place.
    """

    tokens: Tokens
    named: tuple[Tokens, ...]
    made_up: tuple[tuple[Tokens, ...], ...]


def spellings_of(concept: Concept, tok: Any, *, variants: bool = True) -> list[Spelling]:
    """Returns the spellings of a concept's name: behind a space, without one as at the start, and with a capital.

    A name that the tokenizer does not give back as it was has none.

    Args:
        concept: The concept.
        tok: Its model's tokenizer.
        variants: Off, the name counts only as it is written in the requests.
    """
    drawn = MadeUp(f"TARS {concept.name}", names_of=_names())
    # Of a name without letters or digits nothing can be like it.
    others = drawn.several_like(concept.name, _MADE_UP) or [drawn.name(1) for _ in range(_MADE_UP)]
    frames = [*(f"{lead} " for lead in concept.leads), *_WORDS, *_SIGNS]
    names = [concept.name, *([concept.name[0].upper() + concept.name[1:]] if variants else [])]
    found: dict[Tokens, dict[Tokens, tuple[Tokens, ...]]] = {}
    for name in dict.fromkeys(names):
        for frame in dict.fromkeys(frames):
            before, tokens = _split(tok, frame, name)
            # Elsewhere a sign and the name share a token.
            if tokens and tok.decode(list(tokens)).strip() == name:
                made_up = tuple(_joined(tok, frame, other) for other in others)
                found.setdefault(tokens, {})[before + tokens] = made_up
    return [Spelling(tokens, tuple(cases), tuple(cases.values())) for tokens, cases in found.items()]


@cache
def _names() -> MadeUp:
    """Whose names all concepts draw from."""
    return MadeUp("TARS")


def _split(tok: Any, frame: str, name: str) -> tuple[Tokens, Tokens]:
    # A space in front of a word belongs to the word's first token.
    return tokens_around(tok, frame + name, len(frame.rstrip(" ")))


def _joined(tok: Any, frame: str, name: str) -> Tokens:
    before, tokens = _split(tok, frame, name)
    return before + tokens
