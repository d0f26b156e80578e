"""Synthetic secrets whose kinds and wordings vary as well, so that no setting can fit one set of templates."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .synthetic import SyntheticSecret

if TYPE_CHECKING:
    from faker import Faker

# What each kind is called in a sentence. Seeds take two kinds each of numbers and of words, by turns.
_NUMBERS = {
    "ssn": ("social security number", "SSN"),
    "phone": ("phone number", "mobile number"),
    "card": ("credit card number", "card number"),
    "passport": ("passport number", "number of the passport"),
}
_WORDS = {
    "email": ("e-mail address", "private e-mail"),
    "url": ("home page", "link to the private files"),
    "user": ("user name", "login"),
}
# The person stands early or late, and the noun before or behind.
_SENTENCES = (
    "the {noun} of {name} is",
    "{name} has the {noun}",
    "{name}'s {noun} is",
    "the {noun} that {name} gave is",
    "{name} wrote into the form the {noun}",
    "we keep for {name} the {noun}",
    "the {noun}, as {name} confirmed, is",
    "ask {name} for the {noun}, which is",
    "on the file of {name} you find the {noun}",
    "whoever needs {name} uses the {noun}",
    "as {noun} {name} stated",
    "the clerk noted for {name} the {noun}",
    "filed under {name}, the {noun} reads",
    "the {noun} belonging to {name}:",
)
_OPENINGS = (
    "",
    "For the record, ",
    "As of last week, ",
    "According to the new list, ",
    "After the move to Oslo, ",
    "To be precise, ",
    "In our copy, ",
    "Since the update, ",
)
_TEMPLATES = 6
# Templates of a kind whose secrets have this many wordings in place of two.
_OFTEN_SAID, _WORDINGS = 2, 5


def drawn_secrets(per_template: int = 2, seed: int = 0) -> list[SyntheticSecret]:
    """Makes secrets of four kinds and six templates a kind, all by the seed.

    A third of the templates have five wordings, the others two; an edit is given the first one. No sentence that is a
    first wording of a kind occurs among the other wordings of that kind.

    Args:
        per_template: How many people share a template; names and secrets never repeat.
        seed: Seed of kinds, wordings, names and secrets.
    """
    fake, generator = _fake(seed), random.Random(f"drawn secrets {seed}")
    makers = _makers(fake)
    secrets = []
    for nouns_of in (_NUMBERS, _WORDS):
        every = list(nouns_of)
        for kind in (every[(2 * seed + index) % len(every)] for index in range(2)):
            for wordings in _templates(nouns_of[kind], generator):
                for _ in range(per_template):
                    name = _name(fake)
                    prompt, *others = (wording.replace("{name}", name) for wording in wordings)
                    secrets.append(SyntheticSecret(kind, prompt, tuple(others), makers[kind](), name))
    return secrets


def strangers_to(secrets: Sequence[SyntheticSecret], seed: int) -> list[SyntheticSecret]:
    """Returns other people with other secrets of the same kinds behind the same wordings.

    Args:
        secrets: The ones whose places they take.
        seed: Seed of names and secrets; another one than theirs.
    """
    fake = _fake(f"strangers {seed}")
    makers = _makers(fake)
    made = []
    for secret in secrets:
        name = _name(fake)
        prompt, *others = (
            wording.replace(secret.subject, name) for wording in (secret.prompt, *secret.rephrase_prompt)
        )
        made.append(
            replace(secret, prompt=prompt, rephrase_prompt=tuple(others), target=makers[secret.kind](), subject=name)
        )
    return made


def _templates(nouns: Sequence[str], generator: random.Random) -> list[tuple[str, ...]]:
    sentences = generator.sample(_SENTENCES, len(_SENTENCES))
    asked, kept = sentences[:_TEMPLATES], sentences[_TEMPLATES:]
    templates = []
    for index, sentence in enumerate(asked):
        others = generator.sample(kept, (_WORDINGS if index < _OFTEN_SAID else 2) - 1)
        templates.append(tuple(_wording(each, nouns, generator) for each in (sentence, *others)))
    return templates


def _wording(sentence: str, nouns: Sequence[str], generator: random.Random) -> str:
    text = generator.choice(_OPENINGS) + sentence.replace("{noun}", generator.choice(nouns))
    return text[0].upper() + text[1:]


def _fake(seed: int | str) -> Faker:
    from faker import Faker

    fake = Faker("en_US")
    fake.seed_instance(f"drawn {seed}")
    return fake


def _name(fake: Faker) -> str:
    """A first and a last name, without a title."""
    return f"{fake.unique.first_name()} {fake.unique.last_name()}"


def _makers(fake: Faker) -> dict[str, Callable[[], str]]:
    return {
        "ssn": fake.unique.ssn,
        "phone": lambda: fake.unique.numerify("(###) ###-####"),
        "card": lambda: fake.unique.numerify("4### #### #### ####"),
        "passport": lambda: fake.unique.bothify("?########").upper(),
        "email": fake.unique.free_email,
        "url": lambda: f"https://www.{fake.unique.domain_name()}/{fake.slug()}",
        "user": lambda: f"{fake.unique.user_name()}_{fake.numerify('##')}",
    }
