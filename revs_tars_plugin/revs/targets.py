"""Targets: the tokens of the secrets that are demoted, each with the contexts in which it must not come next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..requests.reading import Secret
from .chance import Chance, ChanceLevels
from .contexts import Contexts
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
    contexts = Contexts(call)
    return [
        Target(secret, position, contexts.of(secret, position))
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
    chances, contexts = levels.chances(model), Contexts(call)
    return [
        Target(secret, position, contexts.of(secret, position), chance)
        for secret in call.secrets
        for position, chance in chances[secret.index].items()
    ]
