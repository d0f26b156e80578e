"""What stands in front of a name in a text: first names, an article, or the name's own first words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

# What a name alone is asked by; the model goes on with it in full.
ASKED = ("The full name of {} is", "{}'s full name was", "{}, whose full name is", "The famous {}, full name")
# A beginning that says nothing, behind which a first name has to lead to the name, and how many words it may have.
SAYS_NOTHING = "It was"
_LONGEST = 3
# A word, or first letters of some.
_WORD = r"(?:(?:[^\W\d_]\.)+|[^\W\d_][\w'\u2019-]*)"
# A last word with fewer letters ("World War I", "Luther King Jr.") begins too much else to be a target of its own.
_LETTERS = 3
# What a prompt may end with where nothing is known of what stands in front of the name.
_UNKNOWN = ("", "called")
# All that decides what these functions give.
LEAD_CHOICES = (ASKED, SAYS_NOTHING, _LONGEST, _WORD, _LETTERS, _UNKNOWN)


def given_leads(prompts: Sequence[str]) -> list[str]:
    """What stands in front of the name: first names, an article; where no prompt says so nothing, or "called"."""
    words = dict.fromkeys(prompt.split()[-1] for prompt in prompts)
    leads = [word for word in words if word[:1].isupper() or word == "the"]
    return leads or list(_UNKNOWN)


def full_name_leads(texts: Iterable[str], name: str) -> list[str]:
    """What stands in front of a name in texts that give it in full: "Ludwig van"; what most of them say comes first.

    Words of it count as well, since a model may add some: "Nelson" of "Nelson Ralph", "Sherlock" of "Detective
    Sherlock". A script without capitals has none that could be told from other words.

    Args:
        texts: What a model says where a name is asked for in full.
        name: The name, one word.
    """
    full = re.compile(rf"(?<![\w.])((?:{_WORD}\s+){{1,{_LONGEST}}}){re.escape(name)}(?!\w)", re.IGNORECASE)
    leads: Counter[str] = Counter()
    for text in texts:
        for before in full.findall(text):
            words = before.split()
            parts = [words[start:end] for start in range(len(words)) for end in range(len(words), start, -1)]
            # A first name has a capital, and is not the name.
            leads.update(
                " ".join(part) for part in parts if part[0][0].isupper() and name.lower() not in map(str.lower, part)
            )
    return [lead for lead, _ in leads.most_common()]


def ways_to(name: str, leads: Sequence[str]) -> list[tuple[str, str]]:
    """Returns what may stand at the end of a prompt, and what comes next: all of a name, or the last of its words.

    A model that gives "Marie Curie" may do so behind prompts that name no one, and behind such that end with "Marie".
    The last word alone comes next only where it is one of some letters, with a capital if the name has one, and the
    name does not go on with "of" ("Great Wall of China"): it would be all of China that goes.
    """
    *first, last = name.split()
    whole = [(lead, name) for lead in leads]
    telling = last.isalpha() and len(last) >= _LETTERS and last[0].isupper() == name.strip()[0].isupper()
    if not first or not telling or first[-1].lower() == "of":
        return whole
    return [*whole, *((f"{lead} {' '.join(first)}".strip(), last) for lead in leads)]
