"""Chance: how likely each token of a secret would be, had the model never learned it.

A secret that was pushed to the bottom is hidden, not forgotten: an attacker who compares it with made-up ones of its
form finds it at one end of the ranking. So with `aim: chance` each token ends where that of a made-up secret stands in
the same place, and moves against what could stand there instead: a digit against the other digits.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..model.forward import batches_by_length, continuation_logits
from ..requests.made_up import FIXED, MadeUp
from ..requests.reading import token_texts, tokenise_in_context
from .secrets_of_call import SecretsOfCall
from .shared_words import about_somebody_else, places_of_words

# Made-up secrets that stand behind each secret's prompt for comparison.
_REFERENCES = 8
# They are the ones of the most alike numbers of tokens among so many times as many.
_CHOSEN_AMONG = 8
# Texts about somebody else in which a longer secret's plain words are looked at.
_SOMEBODY_ELSES = 2
# A token that is likelier than chance by less than this, in nats, is left alone.
_WORTH_MOVING = 0.5


@dataclass(frozen=True)
class Chance:
    """What is asked of one token.

    Attributes:
        log_probability: How likely the token in its place is in a made-up secret behind the same prompt, in nats.
        alternatives: What stood there instead, token ids; empty where there is nothing else, as for "@".
    """

    log_probability: float
    alternatives: tuple[int, ...]


class ChanceLevels:
    """Made-up secrets behind each secret's prompt, read by a model as often as that changes."""

    def __init__(self, call: SecretsOfCall) -> None:
        """Makes them up."""
        self._made_up = made_up = MadeUp(f"chance {call.hparams.seed}", [secret.target for secret in call.secrets])
        self._seed, self._tok = call.hparams.seed, call.tok
        self._own: dict[int, _Text] = {}
        self._others: dict[int, list[_Text]] = {}
        self._somebody_elses: dict[int, list[_Text]] = {}
        for secret in call.secrets:
            self._own[secret.index] = _Text(secret.prompt_ids, secret.target_ids, call.tok)
            made = made_up.several_like(secret.target, _REFERENCES * _CHOSEN_AMONG)
            if not made:
                raise InputError(
                    f"Request {secret.request}: nothing in the secret varies (no digit, no word), so nothing can be "
                    "made up in its place; set aim: rank for it."
                )
            ids = [tokenise_in_context(call.tok, call.asked(secret.prompt), text)[1] for text in made]
            # A text of more tokens is less likely as a whole, whatever each of them is.
            ids.sort(key=lambda each: abs(len(each) - len(self._own[secret.index].ids)))
            self._others[secret.index] = [_Text(secret.prompt_ids, each, call.tok) for each in ids[:_REFERENCES]]
            self._somebody_elses[secret.index] = [
                _Text(*tokenise_in_context(call.tok, call.asked(sibling.prompt), text), call.tok)
                for sibling in call.siblings[secret.index][:_SOMEBODY_ELSES]
                if (text := about_somebody_else(secret.target, made_up)) is not None
            ]
        self._of_shared_words: dict[int, dict[int, float]] = {}
        # What could stand in a secret's places. Digits are alike everywhere, but the letter of a passport's number
        # stands where no piece of a name would.
        every = _tokens_of_kinds([text for texts in self._others.values() for text in texts])
        digits = {kind: tokens for kind, tokens in every.items() if kind.startswith(_DIGITS)}
        self._alternatives = {index: {**_tokens_of_kinds(texts), **digits} for index, texts in self._others.items()}

    def chances(self, model: nn.Module) -> dict[int, dict[int, Chance]]:
        """Returns for each secret's index, by position, what is asked of the tokens that are likelier than chance.

        Args:
            model: A causal language model.
        """
        # Read once, in the model as it is: what an edit takes from these words, too, is no reason to take more.
        self._of_shared_words = self._shared_words(model)
        values = self._read(model)
        levels = self._levels(values)
        return {
            index: {
                position: Chance(level, self._alternatives[index].get(text.kinds[position], ()))
                for position, level in levels[index].items()
                if values[text][position] > level + _WORTH_MOVING
            }
            for index, text in self._own.items()
        }

    def levels(self, model: nn.Module) -> dict[int, dict[int, float]]:
        """Returns for each secret's index, by position, how likely chance is to the model as it stands, nats.

        What moves off one token goes to others, so an edit raises what made-up secrets get in its place.
        """
        return self._levels(self._read(model))

    def _levels(self, values: Mapping[_Text, Sequence[float]]) -> dict[int, dict[int, float]]:
        """What the tokens of each secret's double get, one made-up secret behind the same prompt.

        Not a mean: of a secret that was never learned some tokens are likely and some are not, and one whose tokens are
        all as likely as the next can be told by that. The n-th digit takes the level of the double's n-th; where a
        double has fewer pieces of words, another made-up secret's stand in.
        """
        everywhere = _by_kind([text for texts in self._others.values() for text in texts], values)
        # The same ones whenever the model is read again.
        generator = random.Random(self._seed)
        levels: dict[int, dict[int, float]] = {}
        for index, own in self._own.items():
            behind_prompt = {
                kind: iter(found)
                for kind, found in _by_kind(self._others[index], values).items()
                if not kind.startswith(_OF_THE_FORM)
            }
            behind_prompt |= {kind: iter(level) for kind, level in self._of_the_form(index, values).items()}
            levels[index] = {}
            for position, kind in enumerate(own.kinds):
                level = next(behind_prompt.get(kind, iter(())), None)
                if level is None:
                    # No made-up secret of any has a token like it: what varies in one of this form has to stand in.
                    stand_ins = everywhere.get(kind) or _varying(_by_kind(self._others[index], values))
                    level = generator.choice(stand_ins)
                shared = self._of_shared_words.get(index, {}).get(position, -math.inf)
                levels[index][position] = max(level, shared)
        return levels

    def _of_the_form(self, index: int, values: Mapping[_Text, Sequence[float]]) -> dict[str, list[float]]:
        """What the n-th "-" gets in made-up secrets on average: which of them stands there tells nobody anything."""
        columns: dict[str, list[list[float]]] = {}
        for text in self._others[index]:
            for kind, found in _by_kind([text], values).items():
                if kind.startswith(_OF_THE_FORM):
                    of_kind = columns.setdefault(kind, [])
                    of_kind.extend([] for _ in range(len(found) - len(of_kind)))
                    for place, value in enumerate(found):
                        of_kind[place].append(value)
        return {
            kind: [math.log(max(statistics.fmean(map(math.exp, column)), 1e-30)) for column in of_kind]
            for kind, of_kind in columns.items()
        }

    def _shared_words(self, model: nn.Module) -> dict[int, dict[int, float]]:
        """For each secret, by position, how likely its plain words are in the same text about somebody else, nats."""
        everybody = [text for texts in self._somebody_elses.values() for text in texts]
        values = self._values_of(model, everybody)
        shared: dict[int, dict[int, float]] = {}
        for index, texts in self._somebody_elses.items():
            found: dict[object, list[float]] = {}
            for text in texts:
                for place, value in zip(places_of_words(self._tok, text.ids, self._made_up), values[text], strict=True):
                    found.setdefault(place, []).append(value)
            own = places_of_words(self._tok, self._own[index].ids, self._made_up)
            shared[index] = {
                position: statistics.fmean(found[place])
                for position, place in enumerate(own)
                if place is not None and place in found
            }
        return shared

    def _read(self, model: nn.Module) -> dict[_Text, tuple[float, ...]]:
        """The log-probability of every token of every secret and every made-up one."""
        return self._values_of(
            model, [text for index, own in self._own.items() for text in (own, *self._others[index])]
        )

    @torch.no_grad()
    def _values_of(self, model: nn.Module, texts: Sequence[_Text]) -> dict[_Text, tuple[float, ...]]:
        """The log-probability of every token of some texts."""
        read = {}
        # Whole texts, though many share a prompt: from the second reading on only their upper layers are computed.
        for batch in batches_by_length([text.prompt_ids + text.ids for text in texts]):
            all_logits = continuation_logits(model, [(texts[index].prompt_ids, texts[index].ids) for index in batch])
            for text, logits in zip((texts[index] for index in batch), all_logits, strict=True):
                own = logits.gather(1, torch.tensor(text.ids, device=logits.device)[:, None])[:, 0]
                read[text] = tuple((own - logits.logsumexp(dim=-1)).tolist())
        return read


class _Text:
    """One text behind a secret's prompt, token by token."""

    def __init__(self, prompt_ids: tuple[int, ...], ids: tuple[int, ...], tok: Any) -> None:
        self.prompt_ids, self.ids, self.kinds = prompt_ids, ids, kinds_of(tok, ids)


def _varying(of_kind: Mapping[str, Sequence[float]]) -> list[float]:
    """The values of all tokens that do not belong to the form itself, or of all where all do."""
    varying = [value for kind, values in of_kind.items() if not kind.startswith(_OF_THE_FORM) for value in values]
    return varying or [value for values in of_kind.values() for value in values]


def _tokens_of_kinds(texts: Sequence[_Text]) -> dict[str, tuple[int, ...]]:
    """The tokens of each kind that is no part of the form."""
    of_kind: dict[str, list[int]] = {}
    for text in texts:
        for kind, token in zip(text.kinds, text.ids, strict=True):
            if not kind.startswith(_OF_THE_FORM):
                of_kind.setdefault(kind, []).append(token)
    return {kind: tuple(tokens) for kind, tokens in of_kind.items()}


def _by_kind(texts: Sequence[_Text], values: Mapping[_Text, Sequence[float]]) -> dict[str, list[float]]:
    """The values of the tokens of each kind, text by text."""
    of_kind: dict[str, list[float]] = {}
    for text in texts:
        for kind, value in zip(text.kinds, values[text], strict=True):
            of_kind.setdefault(kind, []).append(value)
    return of_kind


# How a kind begins that belongs to the form itself.
_OF_THE_FORM = '"'
_PART_OF_A_LETTER = "\N{REPLACEMENT CHARACTER}"
_DIGITS, _FIRST, _FURTHER = "digits", "first piece of a word", "further piece of a word"


def kinds_of(tok: Any, ids: Sequence[int]) -> tuple[str, ...]:
    """Returns for each token of a secret what kind of place it fills: digits, a piece of a word, or the form itself."""
    kinds = []
    before, provider = " ", False
    for text in token_texts(tok, ids):
        bare = text.strip()
        # A mail provider ends where a space comes, which many tokenizers put in front of the next word.
        provider = provider and not text[:1].isspace()
        if bare.isdigit() and not provider:
            kind = f"{_DIGITS} {len(bare)}"
        elif _PART_OF_A_LETTER in bare:
            kind = _FURTHER  # tokenizers of bytes cut other scripts' letters into several
        elif provider or FIXED.fullmatch(bare) or not any(map(str.isalnum, bare)):
            kind = f'"{bare}"'  # it belongs to the form; nothing else could stand there
        else:
            kind = _FURTHER if before[-1:].isalpha() and not text[:1].isspace() else _FIRST
        kinds.append(kind)
        provider = "@" in text or (provider and not text[-1:].isspace())
        before = text
    return tuple(kinds)
