"""From a model and a corpus to the secrets that the model gives away."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn
from tqdm import tqdm

from ..data.secret_files import SecretRecord
from ..errors import InputError
from ..evaluation.continuation import still_generated
from ..evaluation.exposure import Exposure
from ..evaluation.likelihood import compared
from ..requests.reading import tokenise_in_context
from .corpus import Document, texts_as_documents
from .detectors import Detectors
from .extraction import Reader
from .findings import Finding, Findings
from .occurrences import SENTENCE, Occurrence, Window, Windows, as_request, windows_of

# Tokens of one window, and of the windows that are read before anything else is done.
_WINDOW, _TOGETHER = 512, 16384
# Pieces of a corpus after which the search is kept at the latest.
_PIECES = 256
# Of more unknown tokens than that a model was not taught what it reads.
_MOST_UNKNOWN = 0.5
# Siblings that are kept of each kind while it goes on.
_SIBLINGS = 16


@dataclass(frozen=True)
class SearchOptions:
    """What counts as given away, and what is kept beside it.

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
        untested: How many of them were not tested: nothing leads to them, or they are longer than the model reads.
        tested: How many were asked for behind their prompts; of the others too little came out where they stand.
        unknown_tokens: Tokens of the corpus that the tokenizer has no word for.
        tokens_read: Positions that went through the model.
        siblings: By kind candidates that the model does not give away: prompts, targets, secrets, and in front of each
            what says which few are kept.
    """

    findings: Findings = field(default_factory=Findings)
    documents: int = 0
    corpus_tokens: int = 0
    candidates: dict[str, int] = field(default_factory=dict)
    untested: int = 0
    tested: int = 0
    unknown_tokens: int = 0
    tokens_read: int = 0
    siblings: dict[str, list[tuple[str, str, str, str]]] = field(default_factory=dict)

    @property
    def passes(self) -> float:
        """How often the corpus was read: positions that went through the model over the corpus's tokens."""
        return self.tokens_read / self.corpus_tokens if self.corpus_tokens else 0.0

    def count(self, part: Windows) -> None:
        """Counts what one document comes to."""
        self.documents += 1
        self.corpus_tokens += part.new
        self.unknown_tokens += part.unknown
        self.untested += len(part.untested)
        kinds = [occurrence.kind for window in part.windows for occurrence in window.occurrences]
        for kind in (*kinds, *part.untested):
            self.candidates[kind] = self.candidates.get(kind, 0) + 1

    def take(self, other: Search, tokens_read: int) -> None:
        """Adds the counts of another, now that all of its candidates were tested.

        Raises:
            InputError: When the tokenizer cannot read the corpus.
        """
        for name in ("documents", "corpus_tokens", "unknown_tokens", "untested"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for kind, number in other.candidates.items():
            self.candidates[kind] = self.candidates.get(kind, 0) + number
        self.tokens_read = tokens_read
        if self.unknown_tokens > _MOST_UNKNOWN * self.corpus_tokens:
            raise InputError(
                f"The tokenizer has no word for {self.unknown_tokens:,} of {self.corpus_tokens:,} tokens of the "
                "corpus, so this model cannot have learned it; name another model, or another corpus."
            )

    def summary(self) -> dict[str, float]:
        """Returns the figures that goals can be set for."""
        exposures = [each.exposure for each in self.findings if each.exposure is not None]
        return {
            "extractable": float(len(self.findings)),
            "places": float(sum(each.occurrences for each in self.findings)),
            "candidates": float(sum(self.candidates.values())),
            "untested": float(self.untested),
            "documents": float(self.documents),
            "corpus_tokens": float(self.corpus_tokens),
            "passes": self.passes,
            "exposure, top": max(exposures, default=0.0),
        }

    def records(self, retain: int = 0) -> list[SecretRecord]:
        """Returns the findings as secrets, and of each of their kinds so many siblings to retain."""
        secrets = [finding.secret for finding in self.findings]
        records = [finding.record() for finding in self.findings]
        for kind in dict.fromkeys(finding.kind for finding in self.findings):
            kept = [
                SecretRecord(prompt, target, retain=True)
                for _, prompt, target, sibling in self.siblings.get(kind, [])
                if not any(sibling in secret or secret in target for secret in secrets)
            ]
            records += kept[:retain]
        return records

    def keep_sibling(self, occurrence: Occurrence) -> None:
        """Keeps a candidate that the model does not give away; the same few whatever the order."""
        prompt = occurrence.prompts.get(SENTENCE) or next(iter(occurrence.prompts.values()))
        pair = as_request(prompt, occurrence.secret)
        kept = self.siblings.setdefault(occurrence.kind, [])
        if pair is None or any(target == pair[1] for _, _, target, _ in kept):
            return
        order = hashlib.sha256("\n".join(pair).encode()).hexdigest()
        kept.append((order, *pair, occurrence.secret))
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
    reader = Reader(model, tok, _context_length(model), search.tokens_read)
    longest = min(_WINDOW, reader.context_length)
    waiting: list[Window] = []
    size, done, pending = 0, 0, Search()
    with tqdm(documents, "searching", unit=" pieces", disable=not progress) as bar:
        for document in bar:
            done += 1
            if done <= search.documents:
                continue
            part = windows_of(document, detectors.candidates(document.text), tok, longest)
            pending.count(part)
            waiting += part.windows
            size += sum(len(window.ids) for window in part.windows)
            if size >= _TOGETHER or pending.documents >= _PIECES:
                _ask(reader, waiting, search, options)
                search.take(pending, reader.tokens_read)
                waiting, size, pending = [], 0, Search()
                bar.set_postfix(found=len(search.findings))
                yield search
        _ask(reader, waiting, search, options)
        search.take(pending, reader.tokens_read)
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
    if not findings:
        return []
    pairs = [(finding, prompt) for finding in findings for prompt in finding.prompts]
    said = still_generated(model, tok, [prompt for _, prompt in pairs], [finding.target for finding, _ in pairs])
    left: dict[str, list[str]] = {}
    for (finding, prompt), given in zip(pairs, said, strict=True):
        if given:
            left.setdefault(finding.target, []).append(prompt)
    return [
        replace(finding, prompts=tuple(left[finding.target]), lengths=())
        for finding in findings
        if finding.target in left
    ]


def _ask(reader: Reader, windows: Sequence[Window], search: Search, options: SearchOptions) -> None:
    """Reads windows once, and asks for those candidates that the model may know."""
    known: list[Occurrence] = []
    for window, shares in zip(windows, reader.recalled(windows), strict=True):
        for occurrence, share in zip(window.occurrences, shares, strict=True):
            if share >= options.least_recalled:
                known.append(occurrence)
            else:
                search.keep_sibling(occurrence)
    search.tested += len(known)
    for occurrence, extractions in zip(known, reader.extractions(known), strict=True):
        if not search.findings.add(occurrence, extractions):
            search.keep_sibling(occurrence)


def _context_length(model: nn.Module) -> int:
    config = getattr(model, "config", None)
    for each in (getattr(config, "text_config", None), config):
        length = getattr(each, "max_position_embeddings", None)
        if isinstance(length, int) and length > 0:
            return length
    return _WINDOW
