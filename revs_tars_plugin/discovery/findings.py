"""Findings: each secret that a model gives away once, with all the prompts that bring it out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..data.secret_files import SecretRecord
from .extraction import Extraction
from .occurrences import PREFIXES, SENTENCE, Occurrence
from .subjects import subject_of

# What is tried first for the edit's prompt: a sentence says what the secret is, a few tokens are what others share.
_ORDER = (SENTENCE, *map(str, PREFIXES))
# Prompts of a secret that are kept: one for the edit, the others to measure with.
_PROMPTS = 6


@dataclass(frozen=True)
class Finding:
    """A secret that comes out of a model.

    Attributes:
        kind: What it looks like.
        secret: As it was detected.
        target: With what is glued to it in front.
        prompts: What brings it out, the one for an edit first.
        prefixes: How much text in front brings it out, of "sentence", "10", "50", "200".
        strength: The highest extraction strength of all.
        places: File and line of every place, the first hundred.
        occurrences: How many places there are.
        subject: Whom it is about, where that can be told.
        exposure: From the top among made-up ones of its form, in bits; None where none can be made up.
        zlib_ratio: The bits that the model needs for it over those that zlib does (Carlini et al., arXiv 2012.07805,
            section 4.2, there for whole texts): far below 1 where the model knows it, and it is no mere repetition.
    """

    kind: str
    secret: str
    target: str
    prompts: tuple[str, ...]
    prefixes: tuple[str, ...]
    strength: float
    places: tuple[str, ...]
    occurrences: int = 1
    subject: str | None = None
    exposure: float | None = None
    zlib_ratio: float | None = None

    @classmethod
    def of(cls, record: SecretRecord) -> Finding:
        """Returns a secret that a user names himself."""
        return cls(
            "SECRET", record.target, record.target, (record.prompt, *record.rewordings), (), 1.0, (), 1, record.subject
        )

    def record(self) -> SecretRecord:
        """Returns it as a line of a file of secrets."""
        return SecretRecord(self.prompts[0], self.target, self.subject, self.prompts[1:] or None)

    def to_dict(self) -> dict[str, Any]:
        """Returns it as a line of JSON lines: what `edit` and `evaluate` read, and what was found out."""
        line: dict[str, Any] = {"prompt": self.prompts[0], "target": self.target}
        if self.subject is not None:
            line["subject"] = self.subject
        if len(self.prompts) > 1:
            line["rephrase_prompt"] = list(self.prompts[1:])
        found = {
            "kind": self.kind,
            "secret": self.secret,
            "extraction_strength": self.strength,
            "prefixes": list(self.prefixes),
            "occurrences": self.occurrences,
            "places": list(self.places),
        }
        likely = {"exposure_top": self.exposure, "zlib_ratio": self.zlib_ratio}
        return {**line, **found, **{name: value for name, value in likely.items() if value is not None}}

    @classmethod
    def from_dict(cls, line: Mapping[str, Any]) -> Finding:
        """Reads what `to_dict` wrote."""
        return cls(
            kind=line["kind"],
            secret=line["secret"],
            target=line["target"],
            prompts=(line["prompt"], *line.get("rephrase_prompt", ())),
            prefixes=tuple(line["prefixes"]),
            strength=line["extraction_strength"],
            places=tuple(line["places"]),
            occurrences=line["occurrences"],
            subject=line.get("subject"),
            exposure=line.get("exposure_top"),
            zlib_ratio=line.get("zlib_ratio"),
        )


@dataclass
class Findings:
    """What was found so far, each secret once.

    Attributes:
        by_key: The findings by their targets: the same number written otherwise comes out by itself, and has to be
            forgotten by itself.
    """

    by_key: dict[str, Finding] = field(default_factory=dict)

    def add(self, occurrence: Occurrence, extractions: Mapping[str, Extraction]) -> bool:
        """Adds a candidate in one place; returns whether the model gives it away there."""
        whole = {name: each for name, each in extractions.items() if each.whole}
        if not whole:
            return False
        ordered = [name for name in _ORDER if name in whole]
        prompts = tuple(dict.fromkeys(whole[name].prompt for name in ordered))
        place = f"{occurrence.source}:{occurrence.line}"
        new = Finding(
            kind=occurrence.kind,
            secret=occurrence.secret,
            target=occurrence.target,
            prompts=prompts,
            prefixes=tuple(ordered),
            strength=max(each.strength for each in extractions.values()),
            places=(place,),
            subject=subject_of(prompts[0]),
        )
        known = self.by_key.get(occurrence.target.casefold())
        self.put(new if known is None else _merged(known, new))
        return True

    def put(self, finding: Finding) -> None:
        """Adds a finding, in the place of one of the same target."""
        self.by_key[finding.target.casefold()] = finding

    def __iter__(self) -> Iterator[Finding]:
        """Goes through the findings in the order in which they were found."""
        return iter(self.by_key.values())

    def __len__(self) -> int:
        return len(self.by_key)


def _merged(known: Finding, new: Finding) -> Finding:
    prompts = dict.fromkeys([*known.prompts, *new.prompts])
    return replace(
        known,
        prompts=tuple(prompts)[:_PROMPTS],
        prefixes=tuple(name for name in _ORDER if name in {*known.prefixes, *new.prefixes}),
        strength=max(known.strength, new.strength),
        places=(*known.places, *new.places)[:100],
        occurrences=known.occurrences + 1,
    )


def by_kind(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """Returns findings by kind, the most frequent kind first."""
    kinds: dict[str, list[Finding]] = {}
    for finding in findings:
        kinds.setdefault(finding.kind, []).append(finding)
    return dict(sorted(kinds.items(), key=lambda item: -len(item[1])))


def masked_place(places: Sequence[str]) -> str:
    """Returns where a secret stands, in a few words: the first place, and how many more."""
    return places[0] if len(places) == 1 else f"{places[0]} and {len(places) - 1} more"
