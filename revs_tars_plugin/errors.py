"""The errors that wrong input raises: each is one sentence that names the field or file and the way out."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

# What of a message is shown at most, from its beginning and its end: it may quote what a file holds.
_BEGINNING, _END = 700, 250


class InputError(ValueError):
    """Something the caller gave cannot be used: a setting, a request, a file or a model."""

    def __init__(self, message: str) -> None:
        """Takes the sentence; the middle of a very long one is left out."""
        if len(message) > _BEGINNING + _END:
            message = f"{message[:_BEGINNING]} ... {message[-_END:]}"
        super().__init__(message)


class EditConflictError(InputError):
    """An edit does not fit the weights as they stand: another base, already applied, or overlaid by a later edit."""


class EditFileError(InputError):
    """A saved edit cannot be written or read: no place, another format, a newer one, or damaged."""


class HostError(RuntimeError):
    """EasyEdit is missing, cannot be imported, or already knows another algorithm by our name."""


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Returns ``'; did you mean "x"?'`` for the known word nearest to `word`, or an empty string."""
    near = get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""
