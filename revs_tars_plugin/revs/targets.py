"""Targets: the tokens of the secrets that are demoted, each with the contexts in which it must not come next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..requests import Secret
from .contexts import other_contexts
from .revs_hparams import REVSHyperParams
from .siblings import Sibling
from .token_selection import select_positions, surprises


@dataclass(frozen=True)
class Target:
    """One token to demote.

    Attributes:
        secret: The secret it belongs to.
        position: Its position in the secret.
        elsewhere: Token ids of other contexts in which it must not come next either.
    """

    secret: Secret
    position: int
    elsewhere: tuple[tuple[int, ...], ...] = ()

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
        """All contexts, its own first."""
        return (self.context, *self.elsewhere)


def choose_targets(
    model: nn.Module,
    tok: Any,
    secrets: Sequence[Secret],
    siblings: Mapping[int, Sequence[Sibling]],
    hparams: REVSHyperParams,
    generator: torch.Generator,
) -> list[Target]:
    """Chooses the tokens of every secret, and the contexts each is demoted in.

    Raises:
        InputError: When a secret is left with no token.
    """
    asked = hparams.token_method in ("specific", "chained")
    surprise = surprises(model, tok, secrets, siblings) if asked else {}
    return [
        Target(secret, position, other_contexts(secret, position, siblings[secret.index], secrets, tok, hparams))
        for secret in secrets
        for position in select_positions(secret, tok, hparams, generator, surprise.get(secret.index))
    ]
