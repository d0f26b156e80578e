"""Made-up names, and made-up texts of the same form as a secret: what could as well stand in its place.

An edit learns from them what all secrets of a form share, and an attack compares a secret with them; each has its own.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Mapping, Sequence
from functools import cached_property

# Words that belong to a form, not to a secret: they stay as they are.
FIXED = re.compile(r"https?|mailto|www|com|org|net|edu|gov|info|biz|html?")
# What varies: runs of digits, and runs of letters but for a mail provider and the ending of an ordinal number.
_RUNS = re.compile(r"(?P<fixed>(?<=@)[\w.-]+|(?<=\d)(?:st|nd|rd|th)\b)|\d+|[^\W\d_]+")
# From how many letters on a run that is no known word is taken for one; shorter ones are initials or parts of a key.
_SHORTEST_WORD = 3
# What a run stands in, up to the next spaces; and what may stand there beside a word that is one by itself.
_CHUNK_BEFORE, _CHUNK_BEHIND = re.compile(r"\S*\Z"), re.compile(r"\S*")
_PUNCTUATION = ".,;:!?()'\"-"
# From how many texts on a digit that all of them share is no chance.
_ENOUGH_OF_A_FORM = 4
# How often a word of about the right length is looked for.
_DRAWS = 60
# Names that one instance has; common ones several times.
_DRAWN = 2000


class MadeUp:
    """Draws names and texts that belong to nobody."""

    def __init__(self, seed: int | str, known: Sequence[str] = (), *, names_of: MadeUp | None = None) -> None:
        """Starts from a seed.

        Args:
            seed: The seed; a text and a number of the same digits are different ones.
            known: Secrets that are at hand: a digit that all of one form have in one place belongs to the form, like
                the 4 in front of every number of one kind of card.
            names_of: Draw from the names of this one, which saves the third of a second that thousands of them take.
        """
        self._seed = repr(seed)
        self._random = random.Random(self._seed)
        self._constant = _constant_digits(known)
        self._names_of = names_of

    @cached_property
    def _names(self) -> _Names:
        """Made when the first one is asked for: there are thousands."""
        return _Names(self._seed) if self._names_of is None else self._names_of._names

    @cached_property
    def everyday_words(self) -> frozenset[str]:
        """Common words, in small letters."""
        return frozenset(self._names.words)

    def name(self, words: int) -> str:
        """Returns a person's name of so many words, or a last name for one."""
        names = self._names
        first = [] if words == 1 else [self._random.choice(names.first)]
        return " ".join(first + [self._random.choice(names.last) for _ in range(max(words - 1, 1))])

    def sentence(self, words: int = 8) -> str:
        """Returns a sentence of so many words that say nothing."""
        return " ".join(self._random.choice(self._names.words) for _ in range(words)).capitalize() + "."

    def like(self, text: str) -> str:
        """Returns a text of the same form: digits for digits, names or words for words, the rest as it is.

        The provider of a mail address stays too: many share it.
        """
        constant = self._constant.get(_form(text), {})
        return _RUNS.sub(lambda match: self._other(match, constant), text)

    def several_like(self, text: str, count: int) -> list[str]:
        """Returns distinct texts of the same form, none of them the text itself; fewer where there are not so many."""
        others: dict[str, None] = {}
        for _ in range(20 * count):
            if len(others) == count:
                break
            others[self.like(text)] = None
            others.pop(text, None)
        return list(others)

    def _other(self, match: re.Match[str], constant: Mapping[int, str]) -> str:
        run = match.group()
        if match["fixed"] or FIXED.fullmatch(run):
            return run
        if run.isdigit():
            places = range(match.start(), match.end())
            return "".join(constant.get(place) or self._random.choice(string.digits) for place in places)
        letters = self._word(run.lower(), self._plain_words(match))
        return letters.upper() if run.isupper() else letters.capitalize() if run[0].isupper() else letters

    def _plain_words(self, match: re.Match[str]) -> Sequence[str] | None:
        """What an unknown word by itself is taken for: a last name where it has a capital, an everyday word where not.

        One that stands in an address, or next to digits or underscores, is rather made of names.
        """
        chunk = (_CHUNK_BEFORE.search(match.string[: match.start()]), _CHUNK_BEHIND.match(match.string, match.end()))
        around = "".join(part.group() for part in chunk if part is not None)
        if any(not character.isalpha() and character not in _PUNCTUATION for character in around):
            return None
        words, last_names, _ = self._names.kinds
        return last_names if match.group()[0].isupper() else words

    def _word(self, like: str, unknown: Sequence[str] | None) -> str:
        """A word of the same kind, a name, or two names in one, of this length or nearly.

        Args:
            like: The word, in small letters.
            unknown: Where one is taken from whose kind is not known; None makes one of names.
        """
        # Words first: many of them are names as well.
        same_kind: Sequence[str] | None = next((kind for kind in self._names.kinds if like in kind), None)
        if same_kind is None and len(like) < _SHORTEST_WORD:
            return self._letters(len(like))
        same_kind = same_kind or unknown
        best = ""
        for _ in range(_DRAWS):
            word = self._random.choice(same_kind) if same_kind is not None else self._of_names()
            if not best or abs(len(word) - len(like)) < abs(len(best) - len(like)):
                best = word
            # Not always the best: else few words of a length would stand for all.
            if abs(len(best) - len(like)) <= 1 and self._random.random() < 0.5:
                break
        return best

    def _of_names(self) -> str:
        """What stands in front of "@": a name, an initial and a name, or two names."""
        first, last = (self._random.choice(kind) for kind in (self._names.first, self._names.last))
        made: str = self._random.choice((last, first, self._letters(1) + last, first + last))
        return made.lower()

    def _letters(self, length: int) -> str:
        return "".join(self._random.choice(string.ascii_lowercase) for _ in range(length))


def _form(text: str) -> str:
    """A text with every digit and every letter alike."""
    return re.sub(r"[^\W\d_]", "a", re.sub(r"\d", "0", text))


def _constant_digits(known: Sequence[str]) -> dict[str, dict[int, str]]:
    """For each form that enough of the texts have, the places of digits that they share."""
    by_form: dict[str, list[str]] = {}
    for text in dict.fromkeys(known):
        by_form.setdefault(_form(text), []).append(text)
    return {
        form: {
            place: texts[0][place]
            for place in range(len(form))
            if form[place] == "0" and len({text[place] for text in texts}) == 1
        }
        for form, texts in by_form.items()
        if len(texts) >= _ENOUGH_OF_A_FORM
    }


class _Names:
    """First names, last names and everyday words, as many as one instance needs."""

    def __init__(self, seed: str) -> None:
        from faker import Faker

        fake = Faker("en_US")
        # Offset, so that a benchmark that makes its secrets with the same library and seed does not make these.
        fake.seed_instance(f"made up {seed}")
        self.first = [fake.first_name() for _ in range(_DRAWN)]
        self.last = [fake.last_name() for _ in range(_DRAWN)]
        self.words = sorted({word.lower() for word in fake.get_words_list()})
        # The same without capitals, the most telling kind first.
        self.kinds = (self.words, [name.lower() for name in self.last], [name.lower() for name in self.first])
