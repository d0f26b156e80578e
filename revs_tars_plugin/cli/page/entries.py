"""What is typed into the page, or given to it as a file: bounded, and read as a requests file is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...data.concept_files import ConceptRecord
from ...data.secret_files import SecretRecord
from ...errors import InputError
from ..requests_file import RequestsFile, read_requests_file
from ..session import Session

# Of one text, in characters; of entries; and of a file, in bytes.
MOST_CHARACTERS, MOST_ENTRIES, MOST_BYTES = 4_000, 500, 1 << 20


def with_secret(asked: RequestsFile, prompt: str, target: str, subject: str = "") -> RequestsFile:
    """Returns the list with one more secret.

    Args:
        asked: The list.
        prompt: What leads to it.
        target: The secret.
        subject: Whom it is about; nothing where nobody says so.

    Raises:
        InputError: Naming the field that is empty or too long.
    """
    prompt, target = (
        _text(name, value) for name, value in (("What leads to it", prompt), ("What must be forgotten", target))
    )
    subject = _text("Whom it is about", subject, needed=False)
    secret = SecretRecord(prompt, target, subject or None)
    return _bounded(_of_one_kind(asked, RequestsFile(forget=(secret,))))


def with_concept(asked: RequestsFile, name: str, prompts: str) -> RequestsFile:
    """Returns the list with one more concept.

    Args:
        asked: The list.
        name: The concept's name.
        prompts: What leads to the name, a line each.

    Raises:
        InputError: Naming the field that is empty or too long.
    """
    name = _text("Its name", name)
    lines = tuple(line.strip() for line in _text("What leads to the name", prompts).splitlines() if line.strip())
    return _bounded(_of_one_kind(asked, RequestsFile(concepts=(ConceptRecord(name, lines),))))


def with_file(asked: RequestsFile, file: str) -> RequestsFile:
    """Returns the list with what a file of secrets or concepts says.

    Raises:
        InputError: When it is too large, cannot be read, or has more than a list may have.
    """
    size = Path(file).stat().st_size
    if size > MOST_BYTES:
        raise InputError(f"The file has {size:,} bytes, and this page takes {MOST_BYTES:,}; use revs-tars edit for it.")
    return _bounded(_of_one_kind(asked, read_requests_file(file, Session())))


def _text(name: str, value: str, *, needed: bool = True) -> str:
    value = value.strip()
    if needed and not value:
        raise InputError(f'"{name}" is empty; fill it in.')
    if len(value) > MOST_CHARACTERS:
        raise InputError(f'"{name}" has {len(value):,} characters; it may have {MOST_CHARACTERS:,}.')
    return value


def _of_one_kind(asked: RequestsFile, more: RequestsFile) -> RequestsFile:
    if (asked.concepts and more.forget) or (asked.forget and more.concepts):
        raise InputError("A list has secrets or concepts, since each has a method of its own; clear it first.")
    return replace(
        asked,
        forget=asked.forget + more.forget,
        retain=asked.retain + more.retain,
        concepts=asked.concepts + more.concepts,
    )


def _bounded(asked: RequestsFile) -> RequestsFile:
    secrets = [*asked.forget, *asked.retain]
    texts = [text for each in secrets for text in (each.prompt, each.target, each.subject or "", *each.rewordings)]
    entries = len(secrets)
    for concept in asked.concepts:
        texts += [concept.name, *concept.texts]
        entries += max(1, len(concept.texts))
    if entries > MOST_ENTRIES:
        raise InputError(f"This page takes {MOST_ENTRIES} entries; use revs-tars edit for more.")
    if any(len(text) > MOST_CHARACTERS for text in texts):
        raise InputError(f"One of the texts has more than {MOST_CHARACTERS:,} characters; shorten it.")
    return asked
