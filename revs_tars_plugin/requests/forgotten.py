"""What a request asks to forget: said by the request or by the settings, else guessed, with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ..errors import InputError

ForgetField = Literal["", "forget", "ground_truth", "target_new"]

# What EasyEdit's release fills in when the caller gave no ground truth.
_NO_GROUND_TRUTH = "<|endoftext|>"
_GUESSES = ("ground_truth", "target_new")


class GuessWarning(UserWarning):
    """Nobody said what is to be forgotten, so it was guessed."""


def forgotten_texts(requests: Sequence[Mapping[str, Any]], field: ForgetField = "") -> list[tuple[str, ...]]:
    """Returns for each request the texts that it asks to forget, each once.

    What the request says in "forget" counts most, then what the settings say. Where neither says anything it is
    `ground_truth` where the request has a real one, else `target_new`, and one warning names the field.

    Args:
        requests: The host's request dictionaries; a field holds a text or, as ZsRE and KnowEdit have it, a list of
            answers, nested or not, each of which is forgotten.
        field: The settings' `forget_field`.

    Raises:
        InputError: Naming the request and its field.
    """
    texts, guessed = [], []
    for index, request in enumerate(requests):
        said = "forget" if "forget" in request else field
        if said:
            found = _texts(index, said, request.get(said))
            if not found:
                raise InputError(
                    f'Request {index} has nothing to forget: its "{said}" is empty; give a text or a list of texts'
                    + ("." if said == "forget" else ", or let forget_field name another field.")
                )
        else:
            name, found = _guess(index, request)
            guessed.append(name)
        texts.append(found)
    if guessed:
        names = " or ".join(f'"{name}"' for name in dict.fromkeys(guessed))
        warnings.warn(
            f'Nobody said what is to be forgotten, so it is what stands in {names}. Say it: by a "forget" in each '
            "request, by edit(..., forget=[...]), or by forget_field in the settings.",
            GuessWarning,
            stacklevel=3,
        )
    return texts


def _guess(index: int, request: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    for name in _GUESSES:
        found = _texts(index, name, request.get(name))
        if found:
            return name, found
    raise InputError(
        f'Request {index} has nothing to forget: give the text in "forget" (or in "ground_truth" or "target_new").'
    )


def _texts(index: int, name: str, value: Any) -> tuple[str, ...]:
    if value is None or value == _NO_GROUND_TRUTH:
        return ()
    if isinstance(value, str):
        return (value,) if value.strip() else ()
    if not isinstance(value, list | tuple):
        raise InputError(
            f'Request {index}: "{name}" is a {type(value).__name__}; it must be a text or a list of texts.'
        )
    return tuple(dict.fromkeys(text for item in value for text in _texts(index, name, item)))
