"""What `find` and `clean` share: a search that is told of, kept on disk, and written as a file of secrets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..atomic_write import replacing
from ..data.secret_files import SecretRecord
from ..errors import InputError
from .kept_rows import conditions_of, files_in
from .session import Session, print_table

if TYPE_CHECKING:
    from ..discovery import Document, Finding, Search, SearchOptions
    from .loading import Loaded


@dataclass(frozen=True)
class SearchRequest:
    """Where secrets are looked for, and which.

    Attributes:
        corpus: Files, folders and data sets; none, and the model is sampled.
        fields: The fields of a record that make its text.
        kinds: Only these kinds.
        patterns: A file with the user's own.
        language_model: A spaCy model that knows names.
        samples: How many texts the model is asked for, where there is no corpus.
        prompts: A file with what it is asked by, a line each, beside the packaged ones.
    """

    corpus: Sequence[str]
    fields: Sequence[str] = ()
    kinds: Sequence[str] = ()
    patterns: Path | None = None
    language_model: str | None = None
    samples: int = 0
    prompts: Path | None = None

    def check(self) -> None:
        """Refuses what cannot be searched, before a model is loaded.

        Raises:
            InputError: Saying what to give instead.
        """
        if bool(self.corpus) == bool(self.samples):
            raise InputError(
                "Name the texts that the model may have learned (--corpus), or, without any, how many texts it is to "
                "be sampled for (--samples 1000); not both."
            )
        from ..discovery.corpus import HUB

        for name in self.corpus:
            if not name.startswith(HUB) and not Path(name).expanduser().exists():
                raise InputError(f"--corpus {name}: there is no such file or folder.")
        if self.prompts is not None and not self.samples:
            raise InputError("--prompts is for --samples, where there is no corpus.")

    def detectors(self) -> Any:
        """Returns what finds candidates."""
        from ..discovery import Detectors, read_patterns

        patterns = read_patterns(self.patterns) if self.patterns is not None else None
        return Detectors(self.kinds, patterns, language_model=self.language_model)

    def documents(self, loaded: Loaded, options: SearchOptions, *, progress: bool) -> Iterable[Document]:
        """Returns the corpus, or what the model says."""
        from ..discovery import read_corpus, sampled_documents, sampling_prompts

        if self.corpus:
            return read_corpus(self.corpus, self.fields)
        prompts = sampling_prompts(self.prompts)
        return sampled_documents(loaded.model, loaded.tok, prompts, self.samples, seed=options.seed, progress=progress)

    def check_output(self, output: Path) -> None:
        """Refuses an output that would be read as a part of the corpus.

        Raises:
            InputError: When it lies in one of the folders.
        """
        for name in self.corpus:
            place = Path(name).expanduser()
            if place.is_dir() and output.expanduser().resolve().is_relative_to(place.resolve()):
                raise InputError(f"{output} lies in {place}, which is searched; name a place outside of it.")

    def state(self) -> list[Any]:
        """Returns what changes when a file of it does, or a library that finds candidates."""
        from ..discovery.corpus import files_of

        files = [*(each for each in (self.patterns, self.prompts) if each is not None), *files_of(self.corpus)]
        names = ("presidio-analyzer", "detect-secrets", self.language_model or "spacy")
        return [*(state_of(each) for each in files), *map(_version, names)]


def search_options(
    least_recalled: float, least_exposure: float | None, samples: int, *, retain: int, seed: int | None
) -> SearchOptions:
    """Returns what counts: of what a model makes up itself only what it is sure of."""
    from ..discovery import SearchOptions

    floor = least_exposure if least_exposure is not None else 4.0 if samples else 0.0
    return SearchOptions(least_recalled, least_exposure=floor, retain=retain, seed=seed or 0)


def searched(
    request: SearchRequest, loaded: Loaded, options: SearchOptions, output: Path, *, progress: bool = True
) -> Search:
    """Looks for secrets; a search that was stopped goes on, beside where its result will be.

    Args:
        request: Where, and for which.
        loaded: The model.
        options: What counts.
        output: Where the result will be.
        progress: Show a progress bar.
    """
    from ..discovery import SavedSearch, finish, search_documents

    state = [request, request.state(), options, loaded.name, files_in(Path(loaded.name)), loaded.model.dtype]
    saved = SavedSearch(output.with_name(output.name + ".partial"), conditions_of(*state))
    detectors = request.detectors()
    search = saved.read()
    if search.documents:
        typer.echo(f"Going on behind the first {search.documents:,} pieces, which were searched already.", err=True)
    steps = search_documents(
        loaded.model,
        loaded.tok,
        request.documents(loaded, options, progress=progress),
        detectors=detectors,
        search=search,
        options=options,
        progress=progress,
    )
    for step in steps:
        saved.write(step)
    if not search.corpus_tokens:
        raise InputError("The corpus holds no text; name one that does.")
    finish(loaded.model, loaded.tok, search, options)
    return search


def write_findings(search: Search, output: Path, retain: int) -> None:
    """Writes JSON lines that `edit`, `evaluate` and `clean` read, and removes what was kept of the search.

    Raises:
        InputError: When it cannot be written.
    """
    from ..discovery import SavedSearch

    siblings = [record for record in search.records(retain) if record.retain]
    write_lines(list(search.findings), siblings, output)
    SavedSearch(output.with_name(output.name + ".partial"), "").remove()


def write_lines(findings: Iterable[Finding], siblings: Iterable[SecretRecord], output: Path) -> None:
    """Writes findings, and lines to retain, as JSON lines.

    Raises:
        InputError: When it cannot be written.
    """
    lines: list[dict[str, Any]] = [finding.to_dict() for finding in findings]
    lines += [{"prompt": each.prompt, "target": each.target, "retain": True} for each in siblings]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    try:
        with replacing(output) as opened:
            opened.write(text.encode())
    except OSError as error:
        raise InputError(f"{output} cannot be written ({error.strerror or error}); name another place.") from error


def tell(search: Search, session: Session, sampled: bool) -> None:
    """Prints the findings, masked, and how many there are of each kind."""
    session.mask([finding.record() for finding in search.findings])
    print_table("Given away", [row_of(finding, session) for finding in search.findings])
    counts = search.candidates
    kinds = list(dict.fromkeys([*(finding.kind for finding in search.findings), *counts]))
    found = [finding.kind for finding in search.findings]
    print_table(
        "By kind", [{"kind": kind, "places": counts.get(kind, 0), "given away": found.count(kind)} for kind in kinds]
    )
    if not counts:
        typer.echo("Nothing in it looks like a secret.")
    typer.echo(
        f"Secrets given away: {len(search.findings)}. Places that look like one: {sum(counts.values()):,}, in "
        f"{search.corpus_tokens:,} tokens. Read by the model: {search.passes:.2f} times as many."
    )
    if search.untested:
        typer.echo(
            f"{search.untested:,} places were not tested: nothing stands in front of them, or they are too long."
        )
    if sampled:
        typer.echo("What the model did not happen to say was not tested: a corpus finds more.")


def others_in(texts: Iterable[str], request: SearchRequest) -> list[str]:
    """Returns everything in texts that looks like a secret: what leads to one secret may hold another's."""
    from ..discovery import generic_patterns

    try:
        detectors = request.detectors()
    except InputError:  # secrets of a file, and the libraries are not there
        patterns = generic_patterns()
        return sorted({text[start:end] for text in texts for _, start, end in patterns.spans(text)})
    return sorted({text[each.start : each.end] for text in texts for each in detectors.candidates(text)})


def row_of(finding: Finding, session: Session) -> dict[str, Any]:
    """Returns a finding as a row of a table, masked unless secrets are shown."""
    return {
        "kind": finding.kind,
        "secret": session.redact(finding.secret),
        "behind": ", ".join(finding.prefixes),
        "exposure": finding.exposure,
        "strength": finding.strength,
        "where": session.redact(finding.places[0])
        + (f" and {finding.occurrences - 1} more" if finding.occurrences > 1 else ""),
    }


def state_of(file: Path) -> tuple[str, int, int]:
    """Returns what changes when a file does: its name, size and time."""
    file = file.expanduser()
    return (str(file), file.stat().st_size, file.stat().st_mtime_ns)


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package
