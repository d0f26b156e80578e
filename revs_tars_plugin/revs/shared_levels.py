"""How likely those tokens of a secret are that a model says of anybody: about people who do not exist."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import nn

from ..requests.made_up import MadeUp
from ..requests.reading import Secret, token_texts
from .read_texts import Text, Values, log_mean, log_probabilities
from .secrets_of_call import SecretsOfCall
from .somebody_else import Piece, SomebodyElse, about_somebody_else, tokens_of

# People who do not exist for each secret: sibling prompts.
_SOMEBODY_ELSES = 2
# A beginning is everybody's as long as each of its tokens is at least that likely about somebody else, in nats,
_EVERYBODYS = math.log(0.5)
# and as it is at most that share of what it begins: one that leads all the way is the secret itself.
_MOST_OF_A_CHUNK = 0.5


class SharedLevels:
    """The texts about other people that belong to the secrets of a call."""

    def __init__(self, call: SecretsOfCall, made_up: MadeUp) -> None:
        """Makes them up."""
        self._told = {secret.index: _told(call, secret, made_up) for secret in call.secrets}

    def of(self, model: nn.Module) -> dict[int, dict[int, float]]:
        """Returns for each secret's index, by position, how likely what is no secret is about somebody else, nats.

        Args:
            model: A causal language model.
        """
        texts = [text for told in self._told.values() for one in told for text in one.texts]
        values = log_probabilities(model, texts)
        levels = {}
        for index, told in self._told.items():
            found = [one.levels(values) for one in told]
            levels[index] = {
                position: log_mean(each[position] for each in found)
                for position in (set.intersection(*map(set, found)) if found else ())
            }
        return levels


class _Told:
    """One secret told about one other person."""

    def __init__(self, call: SecretsOfCall, own: Sequence[str], other: SomebodyElse) -> None:
        prompt = call.asked(other.prompt)
        self._own = own
        self._pieces = other.shared
        self._text = Text.behind(prompt, other.text, call.tok)
        self._texts_of_tokens = token_texts(call.tok, self._text.ids)
        self._beginnings: list[tuple[Text, list[str], Piece]] = []
        for text, piece in other.beginnings:
            begun = Text.behind(prompt, text, call.tok)
            self._beginnings.append((begun, token_texts(call.tok, begun.ids), piece))

    @property
    def texts(self) -> list[Text]:
        """All that has to be read."""
        return [self._text, *(text for text, _, _ in self._beginnings)]

    def levels(self, values: Values) -> dict[int, float]:
        """How likely what is shared is, by position in the secret."""
        levels: dict[int, float] = {}
        for piece in self._pieces:
            others = tokens_of(piece.other, self._texts_of_tokens)
            for place, position in enumerate(tokens_of(piece.own, self._own)):
                if others:
                    levels[position] = values[self._text][others[min(place, len(others) - 1)]]
        for text, texts_of_tokens, piece in self._beginnings:
            begun = _begun(self._own, texts_of_tokens, piece, values[text])
            levels |= {position: max(value, levels.get(position, -math.inf)) for position, value in begun.items()}
        return levels


def _told(call: SecretsOfCall, secret: Secret, made_up: MadeUp) -> list[_Told]:
    # A tokenizer of bytes cuts letters of other scripts, and nobody could say where a token stands. Where prompts are
    # cut, others would be cut elsewhere.
    own = token_texts(call.tok, secret.target_ids)
    if "".join(own).strip() != secret.target.strip() or call.hparams.max_prompt_length:
        return []
    # Its own prompt, which a request may give among those of others, is about nobody else.
    others = [sibling.prompt for sibling in call.siblings[secret.index] if sibling.prompt != secret.prompt]
    return [
        _Told(call, own, about_somebody_else(secret.target.strip(), secret.prompt, prompt, made_up))
        for prompt in others[:_SOMEBODY_ELSES]
    ]


def _begun(own: Sequence[str], others: Sequence[str], piece: Piece, values: Sequence[float]) -> Mapping[int, float]:
    """The first tokens of what stands between two spaces, as far as they are everybody's."""
    positions, places = tokens_of(piece.own, own), tokens_of(piece.other, others)
    begun: dict[int, float] = {}
    for position, place in zip(positions, places, strict=False):
        if own[position].strip() != others[place].strip() or values[place] < _EVERYBODYS:
            break
        begun[position] = values[place]
    said = sum(len(own[position].strip()) for position in begun)
    return begun if said <= _MOST_OF_A_CHUNK * (piece.own[1] - piece.own[0]) else {}
