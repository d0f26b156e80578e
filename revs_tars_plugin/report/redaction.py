"""Showing texts about secrets without the secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from ..data.concept_files import ConceptRecord
from ..data.secret_files import SecretRecord

MASK = "•"
# A run of so many characters of a secret counts as a part of it, in whatever text it stands; with a digit in it fewer
# are enough, since the end of a number is sensitive by itself and no part of a common word.
_RUN, _RUN_WITH_DIGIT = 5, 4


class Redactor:
    """Masks secrets, and parts of them, in any text: what a model still says of one is as sensitive as the whole."""

    def __init__(self, secrets: Iterable[str] = (), names: Iterable[str] = (), *, show: bool = False) -> None:
        """Remembers what must not be shown.

        Args:
            secrets: Texts that are masked wherever a few characters in a row of them stand (the whole, where shorter).
            names: Texts that are replaced whole, such as the persons that prompts are about.
            show: Mask nothing.
        """
        self.show = show
        self._runs: dict[int, set[str]] = {}
        for secret in (secret.strip().lower() for secret in secrets):
            for width in {min(_RUN, len(secret)), min(_RUN_WITH_DIGIT, len(secret))}:
                runs = {secret[start : start + width] for start in range(len(secret) - width + 1)}
                self._runs.setdefault(width, set()).update(
                    run
                    for run in runs
                    if run.strip() and (width >= min(_RUN, len(secret)) or any(map(str.isdigit, run)))
                )
        # The longest first, so that a name inside another does not leave half of it.
        self._names = sorted({name.strip() for name in names if name.strip()}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Returns the text with every secret in it masked."""
        if self.show:
            return text
        for name in self._names:
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "[name]", text)
        folded = text.lower()
        if len(folded) != len(text):  # a letter whose small form is longer: places would not fit
            folded = "".join(letter.lower() if len(letter.lower()) == 1 else letter for letter in text)
        hidden = [False] * len(text)
        for width, runs in self._runs.items():
            for start in range(len(text) - width + 1):
                if folded[start : start + width] in runs:
                    hidden[start : start + width] = [True] * width
        return "".join(
            MASK if masked and not letter.isspace() else letter for letter, masked in zip(text, hidden, strict=True)
        )


def redactor_of(
    secrets: Sequence[SecretRecord] = (),
    concepts: Sequence[ConceptRecord] = (),
    *,
    others: Sequence[str] = (),
    show: bool = False,
) -> Redactor:
    """Returns what masks the secrets, the persons they belong to, the names of concepts, and other texts."""
    return Redactor(
        [*(secret.target for secret in secrets), *(name for concept in concepts for name in concept.names), *others],
        [secret.subject for secret in secrets if secret.subject],
        show=show,
    )


def masked_texts(rows: Iterable[Mapping[str, str]], redact: Redactor) -> list[dict[str, str]]:
    """Returns a result's texts masked, each row's kind aside."""
    return [{key: value if key == "kind" else redact(value or "") for key, value in row.items()} for row in rows]
