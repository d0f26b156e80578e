"""Contexts: behind which prompts, beside its own, a secret must not come either."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ..requests.made_up import MadeUp
from ..requests.reading import Secret, perturbed, tokenise_in_context
from .secrets_of_call import SecretsOfCall
from .siblings import VARIABLE

# Which share of a prompt's words, beside what it is about, a reordered variant keeps on average.
_KEPT_WORDS = 0.6
# How many words the made-up sentence in front of it has.
_OPENING = 3
# How a sentence may end in front of a secret.
_ENDS = ("", ":", " is", ",", " -")


class Contexts:
    """The secret's own beginning behind other prompts, for `localization: covariance`.

    The key of a covariance update is sharp: made from the request's prompt alone it hides the secret behind that prompt
    and little else. Other prompts show it what the contexts have in common. They are variants of its own prompt with
    spaces, or with its words in another order; prompts of the call's other requests; and sibling prompts. Where the
    update goes to single neurons there are none.
    """

    def __init__(self, call: SecretsOfCall) -> None:
        """Starts without any; those of a secret are made when they are first asked for."""
        self._call = call
        self._made_up = MadeUp(f"contexts {call.hparams.seed}")
        self._ids: dict[int, tuple[list[tuple[int, ...]], ...]] = {}

    def of(self, secret: Secret, position: int) -> tuple[tuple[int, ...], ...]:
        """Returns the token ids of the other contexts of one token of a secret.

        Args:
            secret: The secret.
            position: The position in it of the token that must not come next.
        """
        if self._call.hparams.localization != "covariance":
            return ()
        if secret.index not in self._ids:
            self._ids[secret.index] = (
                self._tokenised(secret, self._own(secret)),
                self._tokenised(secret, self._siblings(secret)),
            )
        own, siblings = self._ids[secret.index]
        # Behind a sibling prompt nothing leads to a secret's first token.
        return tuple(ids + secret.target_ids[:position] for ids in (own + siblings if position else own))

    def _own(self, secret: Secret) -> list[str]:
        """Prompts about the secret's own subject."""
        hparams = self._call.hparams
        borrowed = borrowed_prompts(secret, self._call.secrets, hparams.borrowed_contexts, hparams.seed)
        # Real wordings are better than shuffled ones, which only stand in for them.
        reordered = max(hparams.reordered_contexts - len(borrowed), 0)
        return [
            *(perturbed(secret.prompt, hparams.seed + i, 10) for i in range(hparams.perturbed_contexts)),
            *reordered_prompts(secret, reordered, hparams.seed, self._made_up),
            *borrowed,
        ]

    def _siblings(self, secret: Secret) -> list[str]:
        """Sibling prompts, the last ones: `surprises` and the second moment use the first."""
        siblings = self._call.siblings[secret.index]
        return [sibling.prompt for sibling in siblings[max(len(siblings) - self._call.hparams.sibling_contexts, 0) :]]

    def _tokenised(self, secret: Secret, prompts: Sequence[str]) -> list[tuple[int, ...]]:
        asked = map(self._call.asked, prompts)
        return [tokenise_in_context(self._call.tok, prompt, secret.target)[0] for prompt in asked]


def reordered_prompts(secret: Secret, count: int, seed: int, made_up: MadeUp) -> list[str]:
    """Returns variants of a secret's prompt with its words in another order, some left out, behind a made-up sentence.

    What the prompt is about stays whole: nobody knows which wordings a model learned a secret in, but all name it.

    Args:
        secret: The secret.
        count: How many.
        seed: Seed of the local generator.
        made_up: Where the sentences come from.
    """
    about = [secret.subject] if secret.subject and secret.subject in secret.prompt else VARIABLE.findall(secret.prompt)
    rest = secret.prompt
    for part in about:
        rest = rest.replace(part, " ", 1)
    variants = []
    generator = random.Random(f"reordered {seed} {secret.prompt}")
    for _ in range(count):
        # Something of the prompt has to be there, or all there is would lead to nothing.
        kept = [word for word in rest.split() if generator.random() < _KEPT_WORDS]
        words = [*about, *kept] or rest.split() or [secret.prompt]
        generator.shuffle(words)
        opening = generator.choice(("", f"{made_up.sentence(_OPENING)} "))
        variants.append(opening + " ".join(words) + generator.choice(_ENDS))
    return variants


def borrowed_prompts(secret: Secret, secrets: Sequence[Secret], count: int, seed: int) -> list[str]:
    """Returns other requests' prompts, of other templates, with this secret's subject in place of theirs.

    So the edit sees its subject in other wordings, none of which it was given for this secret.

    Args:
        secret: The secret; without a subject that occurs in its prompt it gets none.
        secrets: All secrets of the call.
        count: How many prompts at most.
        seed: Seed of the local generator.
    """
    if not secret.subject or secret.subject not in secret.prompt:
        return []
    wordings = {
        other.prompt.replace(other.subject, secret.subject)
        for other in secrets
        if other.subject and other.subject in other.prompt
    }
    wordings.discard(secret.prompt)
    return random.Random(f"{seed} {secret.prompt}").sample(sorted(wordings), min(count, len(wordings)))
