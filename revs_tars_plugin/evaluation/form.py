"""With the right beginning in place, is a secret's digit or word the first or the last of its kind?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..requests.reading import token_texts
from .run import EvaluationRun, mean
from .target_logits import target_logits

_ONLY = ("digits", "letters")


@dataclass(frozen=True)
class FormPlaces:
    """Where the tokens of one secret stand among all tokens of their kind, each behind the secret's own beginning.

    Attributes:
        first: For each token that has a kind, whether it is the most likely one of it.
        last: For each, whether it is the least likely one.
    """

    first: tuple[bool, ...]
    last: tuple[bool, ...]


class TokenKinds:
    """Tokens by kind: as many digits, or letters alone, with or without a space in front."""

    def __init__(self, tok: Any) -> None:
        """Reads the whole vocabulary."""
        self._of: dict[int, str] = {}
        self._members: dict[str, list[int]] = {}
        for token, text in enumerate(token_texts(tok, range(len(tok)))):
            kind = kind_of_text(text)
            if kind is not None:
                self._of[token] = kind
                self._members.setdefault(kind, []).append(token)

    def of(self, token: int) -> str | None:
        """Returns a token's kind; None for one that is neither a number nor letters."""
        return self._of.get(token)

    def members(self, kind: str) -> Sequence[int]:
        """Returns all tokens of a kind."""
        return self._members[kind]


def kind_of_text(text: str) -> str | None:
    """Returns what kind of token a text is: "digits 1", " digits 1", "letters", " letters", or None."""
    space, bare = text[:1] == " ", text.removeprefix(" ")
    if bare.isascii() and bare.isdigit():
        return f"{' ' * space}digits {len(bare)}"
    return f"{' ' * space}letters" if bare.isascii() and bare.isalpha() else None


def form_places(
    model: nn.Module, tok: Any, prompts: Sequence[str], targets: Sequence[str], *, only: str = "digits"
) -> list[FormPlaces]:
    """Returns for each secret where its digits, or words, stand among all that could be there.

    Args:
        model: A causal language model.
        tok: Its tokenizer.
        prompts: One prompt a secret.
        targets: The secrets.
        only: "digits" or "letters": the kinds that count.
    """
    return [places[only] for places in _places(model, tok, prompts, targets)]


def _places(model: nn.Module, tok: Any, prompts: Sequence[str], targets: Sequence[str]) -> list[dict[str, FormPlaces]]:
    """Reads digits and words off the same passes."""
    kinds = TokenKinds(tok)
    places = {}
    for index, target, logits in target_logits(model, tok, prompts, targets):
        ends: dict[str, list[tuple[bool, bool]]] = {only: [] for only in _ONLY}
        for row, token in zip(logits, target, strict=True):
            kind = kinds.of(token)
            if kind is not None:
                own, all_of_kind = row[token], row[torch.tensor(kinds.members(kind), device=row.device)]
                first, last = not bool((all_of_kind > own).any()), not bool((all_of_kind < own).any())
                ends[next(only for only in _ONLY if only in kind)].append((first, last))
        places[index] = {
            only: FormPlaces(tuple(first for first, _ in found), tuple(last for _, last in found))
            for only, found in ends.items()
        }
    return [places[index] for index in range(len(targets))]


def measure_form(run: EvaluationRun) -> None:
    """Looks at all digits, and at all words, of the secrets."""
    all_places = _places(run.model, run.tok, run.asked(run.prompts), run.targets)
    for only in _ONLY:
        with_kind = [places[only] for places in all_places if places[only].first]
        if not with_kind:
            continue
        run.summary[f"{only}, first of their kind"] = mean([first for place in with_kind for first in place.first])
        run.summary[f"{only}, last of their kind"] = mean([last for place in with_kind for last in place.last])
        run.summary[f"{only}, read off whole"] = mean([all(place.first) for place in with_kind])
