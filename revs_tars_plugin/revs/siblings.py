"""Sibling prompts: the secret's own template with other names, and random secrets of the same form behind it.

What a model learns by heart it stores next to what it knows of the template, so an edit that spares ordinary text can
still hit other secrets of that template. Siblings show the edit what all of them share, without showing it any of them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..requests.made_up import MadeUp
from ..requests.reading import Secret, join

_SLOT = "\x00"
# What varies in a prompt when no subject says so: e-mail addresses, numbers, and capitalised words within the sentence.
VARIABLE = re.compile(r"[\w.+-]+@[\w.-]+\w|\d[\d.,/-]*\d|\d|(?<=[^.!?\n] )[A-Z][\w'-]+(?: [A-Z][\w'-]+)*")


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
    made_up = MadeUp(f"siblings {seed}", [secret.target for secret in secrets])
    by_template: dict[object, list[Sibling]] = {}
    by_secret = {}
    generator = random.Random(seed)
    for secret in secrets:
        template = secret.siblings or _template(secret)
        if template not in by_template:
            by_template[template] = []
            if per_template and (secret.siblings or _SLOT in str(template)):
                prompts = [
                    generator.choice(secret.siblings) if secret.siblings else _fill(str(template), secret, made_up)
                    for _ in range(per_template)
                ]
                by_template[template] = [Sibling(text, made_up.like(secret.target)) for text in prompts]
        by_secret[secret.index] = by_template[template]
    return by_secret


def _template(secret: Secret) -> str:
    if secret.subject and secret.subject in secret.prompt:
        return secret.prompt.replace(secret.subject, _SLOT)
    return VARIABLE.sub(_SLOT, secret.prompt)


def _fill(template: str, secret: Secret, made_up: MadeUp) -> str:
    by_subject = secret.subject and secret.subject in secret.prompt
    originals = iter([secret.subject] * template.count(_SLOT) if by_subject else VARIABLE.findall(secret.prompt))

    def filler(_match: re.Match[str]) -> str:
        original = next(originals, "") or ""
        if original[:1].isupper() and "@" not in original:
            return made_up.name(len(original.split()))
        return made_up.like(original)

    return re.sub(_SLOT, filler, template)
