"""Candidates in a text: what looks like a secret, by Presidio, detect-secrets, and patterns."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InputError, did_you_mean
from .patterns import GENERIC, Patterns, generic_patterns

_INSTALL = "pip install 'revs-tars-plugin[find]'"
# What Presidio recognizes by patterns, checksums and the words around: each with its recognizer's class.
_PRESIDIO = {
    "EMAIL_ADDRESS": "EmailRecognizer",
    "PHONE_NUMBER": "PhoneRecognizer",
    "US_SSN": "UsSsnRecognizer",
    "US_ITIN": "UsItinRecognizer",
    "US_PASSPORT": "UsPassportRecognizer",
    "US_BANK_NUMBER": "UsBankRecognizer",
    "CREDIT_CARD": "CreditCardRecognizer",
    "IBAN_CODE": "IbanRecognizer",
    "CRYPTO": "CryptoRecognizer",
    "IP_ADDRESS": "IpRecognizer",
    "URL": "UrlRecognizer",
}
# A person's name, where a spaCy model that knows names is installed.
PERSON, API_KEY = "PERSON", "API_KEY"
KINDS = tuple(dict.fromkeys((*_PRESIDIO, API_KEY, *GENERIC, PERSON)))
# Of detect-secrets' plugins those are left out that Presidio has, or that look at randomness alone.
# The one of private keys finds the line above a key, not the key.
_LEFT_OUT = ("IPPublicDetector", "Base64HighEntropyString", "HexHighEntropyString", "PrivateKeyDetector")
_SHORTEST, _SHORTEST_KEY = 4, 8
_OPENING, _QUOTES, _PUNCTUATION = " \t\r\n\"'<", " \t\r\n\"'>", " \t\r\n\"'>.,;:!?"
# A password may end in anything.
_ENDING_ANYHOW = (API_KEY,)
_PHONE_NUMBER = "PHONE_NUMBER"
# Presidio takes four digits for the number of a service.
_LEAST_DIGITS = {_PHONE_NUMBER: 7}


@dataclass(frozen=True)
class Candidate:
    """What looks like a secret, and where.

    Attributes:
        kind: What it looks like, "EMAIL_ADDRESS".
        start: Where it begins in its text.
        end: Where it ends.
    """

    kind: str
    start: int
    end: int


class Detectors:
    """Finds candidates in texts. Nothing is downloaded, and no text leaves the machine."""

    def __init__(
        self, kinds: Sequence[str] = (), patterns: Patterns | None = None, *, language_model: str | None = None
    ) -> None:
        """Prepares the libraries.

        Args:
            kinds: Only these kinds of `KINDS`, or of the user's own; all by default, but names only with a model.
            patterns: The user's own patterns.
            language_model: An installed spaCy model that knows names, as "en_core_web_sm".

        Raises:
            InputError: When a kind is not known, or a library or the model is missing.
        """
        patterns = patterns or Patterns({})
        known = tuple(dict.fromkeys((*KINDS, *patterns.by_kind)))
        for kind in kinds:
            if kind not in known:
                raise InputError(f'--kind is "{kind}"; it must be of {", ".join(known)}{did_you_mean(kind, known)}')
        if PERSON in kinds and language_model is None:
            raise InputError(f"--kind {PERSON} needs a spaCy model that knows names: name it by --language-model.")
        self._kinds = frozenset(kinds or known)
        self._patterns = (generic_patterns(), patterns)
        self._ignored = patterns.ignored
        self._analyzer = _presidio([kind for kind in _PRESIDIO if kind in self._kinds], language_model)
        self._plugins = _api_key_plugins() if API_KEY in self._kinds else []

    def candidates(self, text: str) -> list[Candidate]:
        """Returns what looks like a secret in a text, in its order; of what overlaps the longest."""
        spans = [span for each in self._spans(text) if self._counts(text, span := _trimmed(text, each))]
        # Of two of one length the one that was named first: a library's kind says more than a pattern of digits.
        spans.sort(key=lambda span: span.start - span.end)
        covered = bytearray(len(text))
        taken: list[Candidate] = []
        for span in spans:
            if not any(covered[span.start : span.end]):
                covered[span.start : span.end] = b"\x01" * (span.end - span.start)
                taken.append(span)
        return sorted(taken, key=lambda span: span.start)

    def _counts(self, text: str, span: Candidate) -> bool:
        content = text[span.start : span.end]
        long_enough = len(content) >= _SHORTEST and sum(map(str.isdigit, content)) >= _LEAST_DIGITS.get(span.kind, 0)
        return span.kind in self._kinds and long_enough and content.lower() not in self._ignored

    def _spans(self, text: str) -> Iterator[Candidate]:
        # The user's own kinds first, then the ones that say most.
        for kind, start, end in self._patterns[1].spans(text):
            yield Candidate(kind, start, end)
        if self._analyzer is not None:
            found = self._analyzer.analyze(text, language="en")
            for result in sorted(found, key=lambda result: -result.score):
                yield Candidate(result.entity_type, result.start, result.end)
        yield from self._api_keys(text)
        for kind, start, end in self._patterns[0].spans(text):
            yield Candidate(kind, start, end)

    def _api_keys(self, text: str) -> Iterator[Candidate]:
        if not self._plugins:
            return
        start = 0
        for line in text.splitlines(keepends=True):
            for plugin in self._plugins:
                for place, end in _key_spans(plugin, line):
                    yield Candidate(API_KEY, start + place, start + end)
            start += len(line)


def _trimmed(text: str, span: Candidate) -> Candidate:
    """Without the spaces and quotes around it, and what ends a sentence rather than a secret."""
    content = text[span.start : span.end]
    start = span.start + len(content) - len(content.lstrip(_OPENING))
    if span.kind == _PHONE_NUMBER:  # Presidio goes on into the next sentence where that begins with a digit
        content = content.split(". ")[0]
    content = content.strip(_OPENING)
    content = content.rstrip(_QUOTES if span.kind in _ENDING_ANYHOW else _PUNCTUATION)
    return replace(span, start=start, end=start + len(content))


def _presidio(kinds: Sequence[str], language_model: str | None) -> Any:
    """Presidio's analyzer with recognizers of these kinds, on a pipeline that only splits words; None without any."""
    if not kinds and language_model is None:
        return None
    try:
        import spacy
        from presidio_analyzer import AnalyzerEngine, RecognizerRegistry, predefined_recognizers
        from presidio_analyzer.nlp_engine import SpacyNlpEngine
    except ImportError as error:
        raise InputError(f"Finding secrets needs presidio-analyzer: {_INSTALL}") from error
    # It warns of every recognizer that is left out.
    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)

    class EmailRecognizer(predefined_recognizers.EmailRecognizer):  # type: ignore[misc]
        """Takes addresses of any domain: the list of public ones would be fetched, and a leak may be of none."""

        def validate_result(self, pattern_text: str) -> None:
            """Leaves the pattern's own score."""

    class Pipeline(SpacyNlpEngine):  # type: ignore[misc]
        """What spaCy makes of a text: words, and with a model names."""

        def load(self) -> None:
            """Takes the installed model, or an empty pipeline."""
            self.nlp = {"en": spacy.load(language_model) if language_model else spacy.blank("en")}

    classes = {kind: getattr(predefined_recognizers, _PRESIDIO[kind]) for kind in kinds}
    if "EMAIL_ADDRESS" in classes:
        classes["EMAIL_ADDRESS"] = EmailRecognizer
    registry = RecognizerRegistry([recognizer() for recognizer in classes.values()], supported_languages=["en"])
    if language_model is not None:
        registry.add_recognizer(predefined_recognizers.SpacyRecognizer(supported_entities=[PERSON]))
    engine = Pipeline()
    try:
        engine.load()
    except (OSError, ImportError) as error:
        raise InputError(
            f'--language-model is "{language_model}", which spaCy does not have; install it, or leave the option out.'
        ) from error
    return AnalyzerEngine(registry, engine, supported_languages=["en"])


def _api_key_plugins() -> list[Any]:
    """detect-secrets' plugins for keys of known services and for passwords that are assigned."""
    try:
        from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    except ImportError as error:
        raise InputError(f"Finding API keys needs detect-secrets: {_INSTALL}") from error
    classes = get_mapping_from_secret_type_to_class().values()
    return [plugin() for plugin in classes if plugin.__name__ not in _LEFT_OUT]


def _key_spans(plugin: Any, line: str) -> Iterator[tuple[int, int]]:
    """Where a plugin finds a key in a line."""
    for pattern in getattr(plugin, "denylist", ()):
        for match in pattern.finditer(line):
            # Of a pattern with groups the plugin itself takes the group, which may be a key's first letters alone.
            groups = [match.span(number) for number in range(1, match.re.groups + 1)]
            start, end = max(groups, key=lambda span: span[1] - span[0], default=match.span())
            yield (start, end) if end - start >= _SHORTEST_KEY else match.span()
    if not hasattr(plugin, "denylist"):
        for value in plugin.analyze_string(line):
            place = line.find(value) if value else -1
            if place >= 0:
                yield place, place + len(value)
