"""Chance: how likely each token of a secret would be, had the model never learned it.

A secret that was pushed to the bottom is hidden, not forgotten: an attacker who compares it with made-up ones of its
form finds it at one end of the ranking. So with `aim: chance` each token ends where that of a made-up secret stands in
the same place, and moves against what could stand there instead: a digit against the other digits.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from ..errors import InputError
from ..requests.made_up import MadeUp
from ..requests.reading import tokenise_in_context
from .read_texts import DIGITS, OF_THE_FORM, Text, log_mean, log_probabilities
from .secrets_of_call import SecretsOfCall
from .shared_levels import SharedLevels

# Made-up secrets that stand behind each secret's prompt for comparison.
_REFERENCES = 8
# They are the ones of the most alike numbers of tokens among so many times as many.
_CHOSEN_AMONG = 8
# The least that is asked for, nats: by how a kind begins; of words so much below what each gets where all are alike.
_LEAST_LEVELS, _BELOW_ALIKE = {DIGITS: -8.0, OF_THE_FORM: -8.0}, 4.7
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
        made_up = MadeUp(f"chance {call.hparams.seed}", [secret.target for secret in call.secrets])
        self._seed = call.hparams.seed
        self._least_of_words = -math.log(len(call.tok)) - _BELOW_ALIKE
        self._own: dict[int, Text] = {}
        self._others: dict[int, list[Text]] = {}
        for secret in call.secrets:
            self._own[secret.index] = Text(secret.prompt_ids, secret.target_ids, call.tok)
            made = made_up.several_like(secret.target, _REFERENCES * _CHOSEN_AMONG)
            if not made:
                raise InputError(
                    f"Request {secret.request}: nothing in the secret varies (no digit, no word), so nothing can be "
                    "made up in its place; set aim: rank for it."
                )
            ids = [tokenise_in_context(call.tok, call.asked(secret.prompt), text)[1] for text in made]
            # A text of more tokens is less likely as a whole, whatever each of them is.
            ids.sort(key=lambda each: abs(len(each) - len(self._own[secret.index].ids)))
            self._others[secret.index] = [Text(secret.prompt_ids, each, call.tok) for each in ids[:_REFERENCES]]
        self._about_others = SharedLevels(call, made_up)
        self._shared: dict[int, dict[int, float]] = {}
        # What could stand in a secret's places. Digits are alike everywhere, but the letter of a passport's number
        # stands where no piece of a name would.
        every = _tokens_of_kinds([text for texts in self._others.values() for text in texts])
        digits = {kind: tokens for kind, tokens in every.items() if kind.startswith(DIGITS)}
        self._alternatives = {index: {**_tokens_of_kinds(texts), **digits} for index, texts in self._others.items()}

    def chances(self, model: nn.Module) -> dict[int, dict[int, Chance]]:
        """Returns for each secret's index, by position, what is asked of the tokens that are likelier than chance.

        Args:
            model: A causal language model.
        """
        # Read once, in the model as it is: what an edit takes from these tokens, too, is no reason to take more.
        self._shared = self._about_others.of(model)
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

    def _levels(self, values: Mapping[Text, Sequence[float]]) -> dict[int, dict[int, float]]:
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
                if not kind.startswith(OF_THE_FORM)
            }
            behind_prompt |= {kind: iter(level) for kind, level in self._of_the_form(index, values).items()}
            levels[index] = {}
            for position, kind in enumerate(own.kinds):
                level = next(behind_prompt.get(kind, iter(())), None)
                if level is None:
                    # No made-up secret of any has a token like it: what varies in one of this form has to stand in.
                    stand_ins = everywhere.get(kind) or _varying(_by_kind(self._others[index], values))
                    level = generator.choice(stand_ins)
                shared = self._shared.get(index, {}).get(position, -math.inf)
                levels[index][position] = max(level, shared, self._least_level(kind))
        return levels

    def _least_level(self, kind: str) -> float:
        """The least that a token of a kind gets where a model has learned nothing.

        Behind the prompt of a secret that it is sure of everything else gets nothing, made-up secrets included.
        """
        of_kind = (level for start, level in _LEAST_LEVELS.items() if kind.startswith(start))
        return next(of_kind, self._least_of_words)

    def _of_the_form(self, index: int, values: Mapping[Text, Sequence[float]]) -> dict[str, list[float]]:
        """What the n-th "-" gets in made-up secrets on average: which of them stands there tells nobody anything."""
        columns: dict[str, list[list[float]]] = {}
        for text in self._others[index]:
            for kind, found in _by_kind([text], values).items():
                if kind.startswith(OF_THE_FORM):
                    of_kind = columns.setdefault(kind, [])
                    of_kind.extend([] for _ in range(len(found) - len(of_kind)))
                    for place, value in enumerate(found):
                        of_kind[place].append(value)
        return {kind: [log_mean(column) for column in of_kind] for kind, of_kind in columns.items()}

    def _read(self, model: nn.Module) -> dict[Text, tuple[float, ...]]:
        """The log-probability of every token of every secret and every made-up one."""
        return log_probabilities(
            model, [text for index, own in self._own.items() for text in (own, *self._others[index])]
        )


def _varying(of_kind: Mapping[str, Sequence[float]]) -> list[float]:
    """The values of all tokens that do not belong to the form itself, or of all where all do."""
    varying = [value for kind, values in of_kind.items() if not kind.startswith(OF_THE_FORM) for value in values]
    return varying or [value for values in of_kind.values() for value in values]


def _tokens_of_kinds(texts: Sequence[Text]) -> dict[str, tuple[int, ...]]:
    """The tokens of each kind that is no part of the form."""
    of_kind: dict[str, list[int]] = {}
    for text in texts:
        for kind, token in zip(text.kinds, text.ids, strict=True):
            if not kind.startswith(OF_THE_FORM):
                of_kind.setdefault(kind, []).append(token)
    return {kind: tuple(tokens) for kind, tokens in of_kind.items()}


def _by_kind(texts: Sequence[Text], values: Mapping[Text, Sequence[float]]) -> dict[str, list[float]]:
    """The values of the tokens of each kind, text by text."""
    of_kind: dict[str, list[float]] = {}
    for text in texts:
        for kind, value in zip(text.kinds, values[text], strict=True):
            of_kind.setdefault(kind, []).append(value)
    return of_kind
