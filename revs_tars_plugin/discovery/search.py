"""From a model and a corpus to the secrets that the model gives away."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn
from tqdm import tqdm

from ..data.secret_files import SecretRecord
from ..errors import InputError
from ..evaluation.exposure import Exposure
from ..evaluation.likelihood import compared
from ..requests.reading import tokenise_in_context
from .corpus import Document, texts_as_documents
from .detectors import Detectors
from .extraction import Reader
from .findings import Finding, Findings
from .occurrences import SENTENCE, Occurrence, Window, windows_of

# Tokens of one window, and of the windows that are read before anything else is done.
_WINDOW, _TOGETHER = 512, 16384
# Siblings that are kept of each kind while it goes on.
_SIBLINGS = 16


@dataclass(frozen=True)
class SearchOptions:
    """What counts.

    Attributes:
        least_recalled: A candidate is asked for behind its prompts if so large a share of its tokens is the most likely
            one where it stands in its text; the others cost one pass and no more.
        least_exposure: Findings have at least so many bits of exposure from the top; those of which nothing can be made
            up count in any case.
        retain: How many siblings a kind, candidates that the model does not give away, become lines to retain.
        seed: Seed of what a secret is compared with.
    """

    least_recalled: float = 0.5
    least_exposure: float = 0.0
    retain: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the values."""
        if not 0 <= self.least_recalled <= 1:
            raise InputError(f"least_recalled is {self.least_recalled}; it must be a share, from 0 to 1.")
        if not 0 <= self.retain <= _SIBLINGS:
            raise InputError(f"retain is {self.retain}; it must be from 0 to {_SIBLINGS}.")


@dataclass
class Search:
    """A search under way, and its result.

    Attributes:
        findings: The secrets that the model gives away.
        documents: Pieces of the corpus so far.
        corpus_tokens: Their tokens.
        candidates: By kind how many candidates there were, every place counted.
        asked: How many of them were asked for behind their prompts.
        tokens_read: Positions that went through the model.
        siblings: By kind candidates that the model does not give away, each with a number that says which are kept.
    """

    findings: Findings = field(default_factory=Findings)
    documents: int = 0
    corpus_tokens: int = 0
    candidates: dict[str, int] = field(default_factory=dict)
    asked: int = 0
    tokens_read: int = 0
    siblings: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)

    @property
    def passes(self) -> float:
        """How often the corpus was read: positions that went through the model over the corpus's tokens."""
        return self.tokens_read / self.corpus_tokens if self.corpus_tokens else 0.0

    def summary(self) -> dict[str, float]:
        """Returns the figures that goals can be set for."""
        exposures = [each.exposure for each in self.findings if each.exposure is not None]
        return {
            "extractable": float(len(self.findings)),
            "places": float(sum(each.occurrences for each in self.findings)),
            "candidates": float(sum(self.candidates.values())),
            "documents": float(self.documents),
            "corpus_tokens": float(self.corpus_tokens),
            "passes": self.passes,
            **({"exposure, top": max(exposures)} if exposures else {}),
        }

    def records(self, retain: int = 0) -> list[SecretRecord]:
        """Returns the findings as secrets, and of each of their kinds so many siblings to retain."""
        secrets = [finding.record() for finding in self.findings]
        kinds = dict.fromkeys(finding.kind for finding in self.findings)
        told = {secret.target for secret in secrets}
        siblings = [
            SecretRecord(prompt, target, retain=True)
            for kind in kinds
            for _, prompt, target in self.siblings.get(kind, [])[:retain]
            if target not in told
        ]
        return secrets + siblings

    def keep_sibling(self, occurrence: Occurrence) -> None:
        """Keeps a candidate that the model does not give away; the same few whatever the order."""
        kept = self.siblings.setdefault(occurrence.kind, [])
        prompt = occurrence.prompts.get(SENTENCE) or next(iter(occurrence.prompts.values()))
        order = hashlib.sha256(f"{prompt}\n{occurrence.target}".encode()).hexdigest()
        if any(target == occurrence.target for _, _, target in kept):
            return
        kept.append((order, prompt, occurrence.target))
        kept.sort()
        del kept[_SIBLINGS:]


def find_memorised(
    model: nn.Module,
    tok: Any,
    texts: Iterable[str],
    *,
    detectors: Detectors | None = None,
    options: SearchOptions | None = None,
    progress: bool = False,
) -> Search:
    """Finds secrets in texts that a model gives away.

    Args:
        model: A causal language model.
        tok: Its tokenizer, a fast one.
        texts: The texts that it may have learned; they are read one after the other.
        detectors: What finds candidates; by default all kinds.
        options: What counts.
        progress: Show a progress bar.

    Returns:
        The search; its `findings` are the secrets, its `records()` what `edit` takes.

    Raises:
        InputError: When the tokenizer gives no offsets, or there is no text.
    """
    search = Search()
    searched = search_documents(
        model,
        tok,
        texts_as_documents(texts),
        detectors=detectors or Detectors(),
        search=search,
        options=options,
        progress=progress,
    )
    for _ in searched:
        pass
    if not search.documents:
        raise InputError("The corpus holds no text; give at least one.")
    finish(model, tok, search, options)
    return search


def search_documents(
    model: nn.Module,
    tok: Any,
    documents: Iterable[Document],
    *,
    detectors: Detectors,
    search: Search,
    options: SearchOptions | None = None,
    progress: bool = False,
) -> Iterator[Search]:
    """Goes through documents, and yields the search whenever all that was read is in it: a later run goes on there.

    Args:
        model: A causal language model.
        tok: Its tokenizer.
        documents: Pieces of text; as many as the search has in it already are left out.
        detectors: What finds candidates.
        search: Where it is written to.
        options: What counts.
        progress: Show a progress bar.
    """
    options = options or SearchOptions()
    if not getattr(tok, "is_fast", False):
        raise InputError("The tokenizer gives no offsets (it is not a fast one); use its fast version.")
    longest = min(_WINDOW, _context_length(model))
    reader = Reader(model, tok)
    before, waiting, size, done = search.tokens_read, [], 0, 0
    pending = Search()
    with tqdm(documents, "searching", unit=" pieces", disable=not progress) as bar:
        for document in bar:
            done += 1
            if done <= search.documents:
                continue
            found = detectors.candidates(document.text)
            windows, new = windows_of(document, found, tok, longest)
            pending.documents += 1
            pending.corpus_tokens += new
            for occurrence in (each for window in windows for each in window.occurrences):
                pending.candidates[occurrence.kind] = pending.candidates.get(occurrence.kind, 0) + 1
            waiting += windows
            size += sum(len(window.ids) for window in windows)
            if size >= _TOGETHER or pending.documents >= 256:
                _ask(reader, waiting, search, options)
                _count(search, pending, before + reader.tokens_read)
                waiting, size, pending = [], 0, Search()
                bar.set_postfix(found=len(search.findings))
                yield search
        _ask(reader, waiting, search, options)
        _count(search, pending, before + reader.tokens_read)
    yield search


def finish(model: nn.Module, tok: Any, search: Search, options: SearchOptions | None = None) -> None:
    """Compares every finding with made-up ones of its form, and leaves out those that are not exposed enough.

    Args:
        model: The model.
        tok: Its tokenizer.
        search: A search that is through its corpus.
        options: What counts.
    """
    options = options or SearchOptions()
    findings = list(search.findings)
    if not findings:
        return
    prompts, targets = [each.prompts[0] for each in findings], [each.target for each in findings]
    compare = compared(model, tok, prompts, targets, seed=options.seed)
    search.findings = Findings()
    for finding, comparison in zip(findings, compare, strict=True):
        exposure = Exposure.of(comparison).top if comparison.others else None
        if exposure is None or exposure >= options.least_exposure:
            behind = tokenise_in_context(tok, finding.prompts[0], finding.target)
            search.tokens_read += len(behind[0]) + (1 + len(comparison.others)) * len(behind[1])
            bits = -comparison.secret.total / math.log(2)
            ratio = bits / zlib_bits(finding.target)
            search.findings.put(replace(finding, exposure=exposure, zlib_ratio=ratio))


def zlib_bits(text: str) -> int:
    """Returns the bits that zlib needs for a text, beside those that it needs for nothing."""
    return 8 * (len(zlib.compress(text.encode(), 9)) - len(zlib.compress(b"", 9)))


def still_extractable(model: nn.Module, tok: Any, findings: Sequence[Finding]) -> list[Finding]:
    """Returns those findings that a model gives away behind one of their prompts, with these prompts alone."""
    reader = Reader(model, tok)
    left = []
    for finding in findings:
        prompts = {str(number): prompt for number, prompt in enumerate(finding.prompts)}
        occurrence = Occurrence(finding.kind, finding.secret, finding.target, prompts, "", 0)
        (extractions,) = reader.extractions([occurrence])
        whole = tuple(each.prompt for each in extractions.values() if each.whole)
        if whole:
            left.append(replace(finding, prompts=whole))
    return left


def _ask(reader: Reader, windows: Sequence[Window], search: Search, options: SearchOptions) -> None:
    """Reads windows once, and asks for those candidates that the model may know."""
    known: list[Occurrence] = []
    for window, shares in zip(windows, reader.recalled(windows), strict=True):
        for occurrence, share in zip(window.occurrences, shares, strict=True):
            if share >= options.least_recalled and occurrence.prompts:
                known.append(occurrence)
            elif occurrence.prompts:
                search.keep_sibling(occurrence)
    search.asked += len(known)
    for occurrence, extractions in zip(known, reader.extractions(known), strict=True):
        if not search.findings.add(occurrence, extractions):
            search.keep_sibling(occurrence)


def _count(search: Search, pending: Search, tokens_read: int) -> None:
    search.documents += pending.documents
    search.corpus_tokens += pending.corpus_tokens
    search.tokens_read = tokens_read
    for kind, count in pending.candidates.items():
        search.candidates[kind] = search.candidates.get(kind, 0) + count


def _context_length(model: nn.Module) -> int:
    config: Mapping[str, Any] | Any = getattr(model, "config", None)
    length = getattr(config, "max_position_embeddings", None)
    return length if isinstance(length, int) and length > 0 else _WINDOW
