"""Sibling prompts: the secret's own template with other names, and random secrets of the same form behind it.

What a model learns by heart it stores next to what it knows of the template, so an edit that spares ordinary text can
still hit other secrets of that template. Siblings show the edit what all of them share, without showing it any of them.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

from ..requests.reading import Secret, join

_SLOT = "\x00"
# What varies in a prompt when no subject says so: e-mail addresses, numbers, and capitalised words within the sentence.
_VARIABLE = re.compile(r"[\w.+-]+@[\w.-]+\w|\d[\d.,/-]*\d|\d|(?<=[^.!?\n] )[A-Z][\w'-]+(?: [A-Z][\w'-]+)*")
# Ends of words that belong to a form, not to a secret: they stay as they are.
FIXED = re.compile(r"https?|www|com|org|net|edu|gov|info|biz|html?")


@dataclass(frozen=True)
class Sibling:
    """A prompt like a secret's, and a made-up secret like it."""

    prompt: str
    target: str

    @property
    def text(self) -> str:
        """The whole sentence."""
        return join(self.prompt, self.target)


def make_siblings(secrets: Sequence[Secret], per_template: int, seed: int) -> dict[int, list[Sibling]]:
    """Makes siblings for every template that occurs among the secrets.

    Args:
        secrets: The secrets; those with the same template share their siblings. A secret's own `siblings`, where the
            request gives them, are used as prompts in place of made ones.
        per_template: How many for each; 0 makes none.
        seed: Seed of the local generator.

    Returns:
        For each secret's index in the call its siblings; the same list for secrets of one template, empty where the
        prompt has nothing to vary.
    """
    names = _Names(seed) if per_template else None
    by_template: dict[object, list[Sibling]] = {}
    by_secret = {}
    generator = random.Random(seed)
    for secret in secrets:
        template = secret.siblings or _template(secret)
        if template not in by_template:
            by_template[template] = []
            if names is not None and (secret.siblings or _SLOT in str(template)):
                prompts = [
                    generator.choice(secret.siblings)
                    if secret.siblings
                    else _fill(str(template), secret, names, generator)
                    for _ in range(per_template)
                ]
                by_template[template] = [Sibling(text, same_form(secret.target, generator)) for text in prompts]
        by_secret[secret.index] = by_template[template]
    return by_secret


def same_form(text: str, generator: random.Random) -> str:
    """Returns random text of the same form: digits for digits, letters for letters, everything else as it is."""

    def other(match: re.Match[str]) -> str:
        run = match.group()
        if run.isdigit():
            return "".join(generator.choice(string.digits) for _ in run)
        if FIXED.fullmatch(run):
            return run
        letters = "".join(generator.choice("aeiou" if i % 2 else "bcdfghklmnprstvw") for i in range(len(run)))
        return letters.upper() if run.isupper() else letters.capitalize() if run[0].isupper() else letters

    return re.sub(r"\d+|[^\W\d_]+", other, text)


def _template(secret: Secret) -> str:
    if secret.subject and secret.subject in secret.prompt:
        return secret.prompt.replace(secret.subject, _SLOT)
    return _VARIABLE.sub(_SLOT, secret.prompt)


def _fill(template: str, secret: Secret, names: _Names, generator: random.Random) -> str:
    by_subject = secret.subject and secret.subject in secret.prompt
    originals = iter([secret.subject] * template.count(_SLOT) if by_subject else _VARIABLE.findall(secret.prompt))

    def filler(_match: re.Match[str]) -> str:
        original = next(originals, "") or ""
        if original[:1].isupper() and "@" not in original:
            return names(len(original.split()))
        return same_form(original, generator)

    return re.sub(_SLOT, filler, template)


class _Names:
    """Made-up names of a given number of words."""

    def __init__(self, seed: int) -> None:
        from faker import Faker

        self._fake = Faker("en_US")
        # Offset, so that a benchmark that makes its secrets with the same library and seed does not make these.
        self._fake.seed_instance(f"siblings {seed}")

    def __call__(self, words: int) -> str:
        if words == 1:
            name: str = self._fake.last_name()
            return name
        return " ".join([self._fake.first_name(), *(self._fake.last_name() for _ in range(words - 1))])
