"""What a command has to forget, from a file or standard input."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.concept_files import ConceptRecord, concepts_from_text
from ..data.secret_files import SecretRecord, secrets_from_text, text_of
from ..errors import InputError
from ..report.redaction import redactor_of
from ..requests.chat import asked_prompt
from ..requests.reading import join
from .session import Session
from .together import launched

_ENDINGS = (".csv", ".jsonl", ".json", ".yaml", ".yml")


@dataclass(frozen=True)
class RequestsFile:
    """The file's content.

    Attributes:
        forget: Secrets to forget.
        retain: Secrets that must stay.
        concepts: Concepts to remove; a file has either secrets or concepts.
    """

    forget: tuple[SecretRecord, ...] = ()
    retain: tuple[SecretRecord, ...] = ()
    concepts: tuple[ConceptRecord, ...] = ()

    def requests(self) -> list[dict[str, str]]:
        """Returns the host's requests."""
        secrets: list[dict[str, str]] = [record.request() for record in self.forget]
        return secrets + [request for concept in self.concepts for request in concept.requests()]

    def requests_of_call(self, tok: Any, *, protect: bool, chat: bool) -> list[dict[str, Any]]:
        """Returns the same for a method's call.

        Args:
            tok: The model's tokenizer.
            protect: Show the method what must stay.
            chat: Put what must stay into the tokenizer's chat template.
        """
        requests: list[dict[str, Any]] = [dict(request) for request in self.requests()]
        if protect and self.retain:
            requests[0]["retain_texts"] = [
                join(asked_prompt(tok, record.prompt, chat), record.target) for record in self.retain
            ]
        return requests


def read_requests_file(file: str, session: Session) -> RequestsFile:
    """Reads a file of secrets or concepts; from here on the session masks them.

    Raises:
        InputError: When it cannot be read, or asks for nothing.
    """
    if file == "-":
        if launched():
            raise InputError("FILE is -, but standard input reaches one process; name a file.")
        try:
            name, text = "standard input", sys.stdin.read()
        except UnicodeDecodeError as error:
            raise InputError(f"Standard input is not UTF-8 (byte {error.start}); convert it first.") from error
        ending = _guessed(text)
    else:
        path = Path(file).expanduser()
        ending = path.suffix.lower()
        if ending not in _ENDINGS:
            # What was written there may be a secret itself, so it is not repeated.
            raise InputError(
                "FILE must end in .csv, .jsonl or .yaml, or be - for standard input; a secret itself on the command "
                "line would stay in the shell's history."
            )
        name, text = str(path), text_of(path)
    if ending in (".yaml", ".yml"):
        concepts, _ = concepts_from_text(text, name)
        session.redact = redactor_of(concepts=concepts, show=session.redact.show)
        return RequestsFile(concepts=tuple(concepts))
    records = secrets_from_text(text, ending, name)
    session.mask(records)
    forget = tuple(record for record in records if not record.retain)
    if not forget:
        raise InputError(f"{name}: every line is retained, so there is nothing to forget.")
    return RequestsFile(forget, tuple(record for record in records if record.retain))


def _guessed(text: str) -> str:
    start = text.lstrip("\ufeff \n\r\t")
    if start.startswith("{"):
        return ".jsonl"
    return ".yaml" if start.startswith(("concepts:", "---", "#")) else ".csv"
