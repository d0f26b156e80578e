"""The errors that wrong input raises: each is one sentence that names the field or file and the way out."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Something the caller gave cannot be used: a setting, a request, a file or a model."""

    def __init__(self, message: str) -> None:
        """Takes the sentence; of a very long one, which quotes what a file holds, the middle is left out."""
        super().__init__(message if len(message) < 950 else f"{message[:700]} ... {message[-200:]}")


class EditConflictError(InputError):
    """An edit does not fit the weights as they stand: another base, already applied, or overlaid by a later edit."""


class EditFileError(InputError):
    """A saved edit cannot be written or read: no place, another format, a newer one, or damaged."""


class HostError(RuntimeError):
    """EasyEdit is missing, cannot be imported, or already knows another algorithm by our name."""


LOST = (
    "One of the processes that work together ended before the others; what is written is whole. Start the command "
    "again."
)


class ProcessLostError(BaseException):
    """One of the processes that do a job together ended before the others; like an interruption, it is no mere error.

    So whoever makes a row of a table of whatever goes wrong does not make one of it.
    """


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Returns ``'; did you mean "x"?'`` for the known word nearest to `word`, or an empty string."""
    near = get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""
