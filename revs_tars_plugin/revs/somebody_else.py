"""The same text about somebody else: what of a secret is no secret, because a model says it of anybody.

A completion such as "Security Number is 900-51-4344. Jane Doe resides at ..." holds words that lead from one fact to
the next, the name that its prompt gave, an address made of that name, and digits that all numbers there begin with.
Made-up words in their place are unlikely, so to bring all of that down to these would take the sentence apart for
everybody. How likely it is about somebody who does not exist says how much of it tells anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from ..requests.made_up import MadeUp

# What stands between spaces and is a word by itself.
_WORD = re.compile(r"(?P<letters>[^\W\d_]+(?:['\u2019-][^\W\d_]+)*)[.,;:!?)]*")
_CHUNK = re.compile(r"\S+")
_RUN = re.compile(r"\d+|[^\W\d_]+")
# The same with a name such as "Smith-Jones" in one.
_NAME = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)+|\d+|[^\W\d_]+")
# Digits from that many on, and letters, that come again are a copy; fewer are an accident.
_SHORTEST_COPY = 3


@dataclass(frozen=True)
class Piece:
    """A part of a text that reads the same, or corresponds, about somebody else.

    Attributes:
        own: Where it begins and ends in the secret.
        other: The same in the other text.
    """

    own: tuple[int, int]
    other: tuple[int, int]


@dataclass(frozen=True)
class SomebodyElse:
    """A secret's text told about somebody else.

    Attributes:
        prompt: The prompt about them.
        text: The text.
        shared: What is no secret in it: plain words, names that the prompt gives, what was said before.
        beginnings: What may begin alike for everybody: texts that go on as the secret does from one place on, where
            that lies in both, up to the next space.
    """

    prompt: str
    text: str
    shared: tuple[Piece, ...]
    beginnings: tuple[tuple[str, Piece], ...]


def is_plain(chunk: str, made_up: MadeUp) -> bool:
    """Says whether what stands between spaces is a plain word: one without capitals, or an everyday one with them.

    Anything else varies: names above all, numbers and addresses.
    """
    word = _WORD.fullmatch(chunk)
    return word is not None and (chunk.islower() or word["letters"].lower() in made_up.everyday_words)


def about_somebody_else(secret: str, prompt: str, other_prompt: str, made_up: MadeUp) -> SomebodyElse:
    """Tells a secret about the person of another prompt.

    Plain words stay, but where there is one at most, or nothing else: they may be the secret itself. Names that one
    prompt has in place of the other's change with them, whatever says them ("jane_doe@" as well). What varies is made
    up, the second time as the first.

    Args:
        secret: The secret.
        prompt: Its prompt.
        other_prompt: The same prompt about somebody else.
        made_up: Where what varies comes from.
    """
    names = _names(prompt, other_prompt)
    chunks = list(_CHUNK.finditer(secret))
    keeps_words = 1 < sum(is_plain(chunk.group(), made_up) for chunk in chunks) < len(chunks)
    in_prompts = set.intersection(
        *({run.group().lower() for run in _RUN.finditer(text)} for text in (prompt, other_prompt))
    )
    said = {run: run for run in in_prompts if len(run) >= _SHORTEST_COPY}
    text, end, shared, beginnings = "", 0, list[Piece](), list[tuple[str, Piece]]()
    for chunk in chunks:
        text += secret[end : chunk.start()]
        start, end = len(text), chunk.end()
        if keeps_words and is_plain(chunk.group(), made_up):
            text += chunk.group()
            shared.append(Piece(chunk.span(), (start, len(text))))
            continue
        beginnings.append((text + chunk.group(), Piece(chunk.span(), (start, start + len(chunk.group())))))
        other = made_up.like(chunk.group())
        others = [run.group() for run in _RUN.finditer(other)]
        runs = list(_runs(chunk.group(), names))
        between = chunk.start()
        for place, run in enumerate(runs):
            text += secret[between : chunk.start() + run.start()]
            between = chunk.start() + run.end()
            word = run.group()
            known = names.get(word.lower()) if _is_name(word) else None
            known = known or said.get(word.lower())
            made = known or (others[place] if len(others) == len(runs) else made_up.like(word))
            made = (
                made.upper() if word.isupper() and len(word) > 1 else made.capitalize() if word[0].isupper() else made
            )
            if known:
                shared.append(Piece((between - len(word), between), (len(text), len(text) + len(made))))
            elif len(word) >= _SHORTEST_COPY:
                said[word.lower()] = made.lower()
            text += made
        text += secret[between:end]
    return SomebodyElse(other_prompt, text, tuple(shared), tuple(beginnings))


def _names(prompt: str, other_prompt: str) -> Mapping[str, str]:
    """What stands in one prompt in place of what the other has, word by word; a name may have more words than another.

    Where one has more, its last ones all stand in place of the other's last.
    """
    own, others = ([word.group() for word in _NAME.finditer(text)] for text in (prompt, other_prompt))
    names: dict[str, str] = {}
    for kind, start, end, other_start, other_end in SequenceMatcher(None, own, others, autojunk=False).get_opcodes():
        if kind == "replace":
            for place, word in enumerate(own[start:end]):
                if _is_name(word):
                    names.setdefault(word.lower(), others[min(other_start + place, other_end - 1)].lower())
    return names


def _is_name(word: str) -> bool:
    """Says whether a word can be told to be a name where it stands: two small letters may stand anywhere."""
    return len(word) >= _SHORTEST_COPY or word[0].isupper()


def _runs(chunk: str, names: Mapping[str, str]) -> Iterator[re.Match[str]]:
    """The words and numbers of what stands between two spaces; a name with a hyphen is one word where it is known."""
    for word in _NAME.finditer(chunk):
        if word.group().lower() in names:
            yield word
        else:
            yield from _RUN.finditer(chunk, word.start(), word.end())


def tokens_of(piece: tuple[int, int], token_texts: Sequence[str]) -> list[int]:
    """Returns which tokens of a text begin within a part of it, spaces aside.

    Args:
        piece: Where the part begins and ends.
        token_texts: The tokens' texts; what stands in front of the first one's letters is no part of the text.
    """
    offset = -(len(token_texts[0]) - len(token_texts[0].lstrip())) if token_texts else 0
    found = []
    for index, text in enumerate(token_texts):
        begin = offset + len(text) - len(text.lstrip())
        if text.strip() and piece[0] <= begin < piece[1]:
            found.append(index)
        offset += len(text)
    return found
