"""Targets: the tokens of the secrets that are demoted, each with the contexts in which it must not come next."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..requests.reading import Secret, perturbed, tokenise_in_context
from .chance import Chance, ChanceLevels
from .secrets_of_call import SecretsOfCall
from .siblings import Sibling
from .token_selection import select_positions, surprises


@dataclass(frozen=True)
class Target:
    """One token to demote.

    Attributes:
        secret: The secret it belongs to.
        position: Its position in the secret.
        elsewhere: Token ids of other contexts in which it must not come next either.
        chance: With `aim: chance`, how likely it may be.
    """

    secret: Secret
    position: int
    elsewhere: tuple[tuple[int, ...], ...] = ()
    chance: Chance | None = None

    @property
    def token(self) -> int:
        """Its id."""
        return self.secret.target_ids[self.position]

    @property
    def context(self) -> tuple[int, ...]:
        """The tokens in front of it, behind the request's own prompt: here it is measured."""
        return self.secret.context(self.position)

    @property
    def contexts(self) -> tuple[tuple[int, ...], ...]:
        """Its own context and the others."""
        return (self.context, *self.elsewhere)

    def goal(self, rank: int, *, everywhere: bool) -> Goal:
        """Returns a rank as what is asked of it: in its own context, or everywhere in the others as well."""
        return Goal(self.token, self.contexts if everywhere else (self.context,), rank=rank)

    def goal_by_levels(self, levels: Sequence[float]) -> Goal:
        """Returns as what is asked of it how likely it may be in each of its contexts, nats."""
        assert self.chance is not None
        return Goal(self.token, self.contexts, levels=tuple(levels), alternatives=self.chance.alternatives)


@dataclass(frozen=True)
class Goal:
    """A token that must become less likely, down to a rank or to levels.

    Attributes:
        token: Its id.
        contexts: Token ids of the contexts in which it must, its own first.
        rank: The rank it must have at least.
        levels: For each context the log-probability that it may have at most; empty where a rank is asked for.
        alternatives: Token ids against which it moves.
    """

    token: int
    contexts: tuple[tuple[int, ...], ...]
    rank: int = 0
    levels: tuple[float, ...] = ()
    alternatives: tuple[int, ...] = ()


def choose_targets(model: nn.Module, call: SecretsOfCall, generator: torch.Generator) -> list[Target]:
    """Chooses the tokens of every secret, and the contexts each is demoted in.

    Args:
        model: A causal language model.
        call: The secrets.
        generator: For `token_method: random`.

    Raises:
        InputError: When a secret is left with no token.
    """
    surprise = {}
    if call.hparams.compares_with_siblings:
        prompts = {
            index: [Sibling(call.asked(sibling.prompt), sibling.target) for sibling in siblings]
            for index, siblings in call.siblings.items()
        }
        surprise = surprises(model, call.tok, call.secrets, prompts)
    return [
        Target(secret, position, other_contexts(call, secret, position))
        for secret in call.secrets
        for position in select_positions(secret, call.tok, call.hparams, generator, surprise.get(secret.index))
    ]


def targets_above_chance(model: nn.Module, call: SecretsOfCall, levels: ChanceLevels) -> list[Target]:
    """Returns every token of every secret that is likelier than chance, for `aim: chance`.

    Args:
        model: A causal language model.
        call: The secrets.
        levels: Where chance is.
    """
    chances = levels.chances(model)
    return [
        Target(secret, position, other_contexts(call, secret, position), chance)
        for secret in call.secrets
        for position, chance in chances[secret.index].items()
    ]


def other_contexts(call: SecretsOfCall, secret: Secret, position: int) -> tuple[tuple[int, ...], ...]:
    """Returns the token ids of a secret's beginning behind other prompts, for `localization: covariance`.

    The key of a covariance update is sharp: made from the request's prompt alone it hides the secret behind that prompt
    and little else. The secret's own beginning behind other prompts shows it what the contexts have in common. They are
    sibling prompts, prompts of the call's other requests, and perturbed variants of its own. A secret's first token,
    which nothing of the secret leads to, has none behind the first two; where the update goes to single neurons there
    are none at all.

    Args:
        call: All secrets of the call.
        secret: The secret.
        position: The position, in the secret, of the token that must not come next.
    """
    hparams = call.hparams
    if hparams.localization != "covariance":
        return ()
    prompts = [perturbed(secret.prompt, hparams.seed + i, 10) for i in range(hparams.perturbed_contexts)]
    if position:
        # The last ones: `surprises` and the second moment use the first.
        siblings = call.siblings[secret.index]
        prompts += [sibling.prompt for sibling in siblings[max(len(siblings) - hparams.sibling_contexts, 0) :]]
        prompts += borrowed_prompts(secret, call.secrets, hparams.borrowed_contexts, hparams.seed)
    return tuple(
        tokenise_in_context(call.tok, call.asked(prompt), secret.target)[0] + secret.target_ids[:position]
        for prompt in prompts
    )


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
