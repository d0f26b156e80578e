"""Where a model is asked for a hidden token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..requests import tokenise_in_context


@dataclass(frozen=True)
class Probe:
    """One token of one secret in one context.

    Attributes:
        secret: Which secret it belongs to.
        context: The token ids in front of it.
        token: Its id.
    """

    secret: int
    context: tuple[int, ...]
    token: int


def probes_of(
    tok: Any, prompts: Sequence[str], targets: Sequence[str], positions: Mapping[int, Sequence[int]]
) -> list[Probe]:
    """Makes probes of the edited tokens of secrets behind any prompts, each with the target tokens before it.

    Args:
        tok: The tokenizer.
        prompts: One prompt a secret.
        targets: The secrets.
        positions: For each secret's index the positions of its edited tokens.
    """
    found = []
    for index, (prompt, target) in enumerate(zip(prompts, targets, strict=True)):
        prompt_ids, target_ids = tokenise_in_context(tok, prompt, target)
        for position in positions.get(index, ()):
            if position < len(target_ids):
                found.append(Probe(index, prompt_ids + target_ids[:position], target_ids[position]))
    return found
