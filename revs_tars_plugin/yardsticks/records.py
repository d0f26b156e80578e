"""What a benchmark's files hold: prompts with the answers that a model learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..data.secret_files import SecretRecord

# Kinds of records whose answer made-up ones can be compared with.
QUESTION, SECRET = "question", "secret"


@dataclass(frozen=True)
class Record:
    """One line of a benchmark.

    Attributes:
        identifier: What the benchmark calls it.
        person: Whom, or which document, it is about: records that belong together share it.
        kind: "completion", the rest of a text; "question"; "secret", a sentence that begins with one; or another.
        task: The part of the benchmark that it belongs to.
        prompt: What the model is given.
        answer: What it learned to say.
        secret: The part of the answer's beginning that has to be forgotten; None where it is all of it.
        subject: What the prompt is about, where the benchmark says so.
    """

    identifier: str
    person: str
    kind: str
    task: str
    prompt: str
    answer: str
    secret: str | None = None
    subject: str | None = None

    def request(self) -> dict[str, str]:
        """Returns the host's request that forgets the answer, or its secret part."""
        return SecretRecord(self.prompt, self.secret or self.answer, self.subject).request()


@dataclass(frozen=True)
class Split:
    """What has to be forgotten, what must stay, and what was never learned.

    Attributes:
        forget: Records that the model learned and has to forget.
        retain: Records that it learned and has to keep.
        unseen: Records like those to forget that no model learned; empty where there are none.
    """

    forget: tuple[Record, ...]
    retain: tuple[Record, ...]
    unseen: tuple[Record, ...] = ()


def people_of(records: Sequence[Record], first: int | None = None, start: int = 0) -> tuple[Record, ...]:
    """Returns the records of so many people, in the order of the file, from the `start`-th person on; None: all."""
    people = list(dict.fromkeys(record.person for record in records))
    chosen = set(people[start:] if first is None else people[start : start + first])
    return tuple(record for record in records if record.person in chosen)
