"""Whom a prompt is about, as far as capitals and common names tell it."""

from __future__ import annotations

import re
from functools import lru_cache

# Words with a capital in a row; a title or an initial may have a point.
_RUN = re.compile(r"\b[A-Z][\w'\u2019-]*(?:[ ](?:[A-Z]\.|[A-Z][\w'\u2019-]*))+")


def subject_of(prompt: str) -> str | None:
    """Returns the name in a prompt that stands nearest to its end, or None where there is none to be sure of.

    A name is two or more words with capitals in a row of which one is a common first or last name; words in front of
    that, such as the verb that a sentence begins with, are left out.
    """
    known = _common_names()
    for match in reversed(list(_RUN.finditer(prompt))):
        words = re.sub(r"['\u2019]s\b", "", match.group()).split()
        places = [place for place, word in enumerate(words) if word.lower() in known]
        if places and len(words) - places[0] >= 2:
            return " ".join(words[places[0] :])
        # A first name that is not common, with a last name that is.
        if places and places[0] == 1 and len(words) == 2 and match.start() > 0:
            return " ".join(words)
    return None


@lru_cache(maxsize=1)
def _common_names() -> frozenset[str]:
    from faker.providers.person.en_US import Provider

    names = (*Provider.first_names, *Provider.last_names)
    return frozenset(name.lower() for name in names)
