"""Words of a longer secret that are no secret: what anybody's text would say there as well.

A completion such as "Security Number is 900-51-4344. She resides at ..." holds words that lead from one fact to the
next. Made-up words in their place are unlikely, so to bring them down to these would take the sentence apart for
everybody. How likely they are about somebody else says whether they tell anything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..requests.made_up import MadeUp
from ..requests.reading import token_texts

# What stands between spaces and is a word by itself.
_WORD = re.compile(r"(?P<letters>[^\W\d_]+(?:['\u2019-][^\W\d_]+)*)[.,;:!?)]*")
_CHUNK = re.compile(r"\S+")
# Place of a token in a text: the number of what stands between spaces, where in it, and what it says.
Place = tuple[int, int, str]


def is_shared(chunk: str, made_up: MadeUp) -> bool:
    """Says whether what stands between spaces is a plain word: one without capitals, or an everyday one with them.

    Anything else varies: names above all, numbers and addresses.
    """
    word = _WORD.fullmatch(chunk)
    return word is not None and (chunk.islower() or word["letters"].lower() in made_up.everyday_words)


def about_somebody_else(text: str, made_up: MadeUp) -> str | None:
    """Returns a text with all that is no plain word replaced by something made up; None where it has one word at most.

    Args:
        text: A secret.
        made_up: Where what varies comes from.
    """
    chunks = _CHUNK.findall(text)
    if sum(is_shared(chunk, made_up) for chunk in chunks) < 2:
        return None
    return _CHUNK.sub(
        lambda match: match.group() if is_shared(match.group(), made_up) else made_up.like(match.group()), text
    )


def places_of_words(tok: Any, ids: Sequence[int], made_up: MadeUp) -> list[Place | None]:
    """Returns for each token of a text where it stands, None for what is no part of a plain word.

    The same word in two texts that differ in what varies has the same place in both.

    Args:
        tok: The tokenizer.
        ids: The tokens of the text behind its prompt.
        made_up: Where everyday words come from.
    """
    places: list[Place] = []
    chunk, offset = 0, 0
    chunks: dict[int, str] = {}
    for text in token_texts(tok, ids):
        bare = text.strip()
        if text[:1].isspace() and chunk in chunks:
            chunk, offset = chunk + 1, 0
        places.append((chunk, offset, bare))
        chunks[chunk] = chunks.get(chunk, "") + bare
        offset += len(bare)
    return [place if is_shared(chunks[place[0]], made_up) else None for place in places]
