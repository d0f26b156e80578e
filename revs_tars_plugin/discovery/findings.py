"""Findings: each secret that a model gives away once, with all the prompts that bring it out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..data.secret_files import SecretRecord
from .extraction import Extraction
from .occurrences import PROMPT_ORDER, Occurrence, as_request
from .subjects import subject_of

# Prompts of a secret that are kept, one for the edit, the others to measure with; and places.
_PROMPTS, _PLACES = 3, 100


@dataclass(frozen=True)
class Finding:
    """A secret that comes out of a model.

    Attributes:
        kind: What it looks like.
        secret: As it was detected.
        target: With what is glued to it in front, since a target stands behind a space.
        prompts: What brings it out, the one for an edit first.
        lengths: How much text in front each of these is, of "sentence", "10", "50", "200".
        prefixes: How much of it brings the secret out anywhere.
        strength: The highest extraction strength of all.
        places: File and line of every place, the first hundred.
        occurrences: How many places there are.
        exposure: From the top among made-up ones of its form, in bits; None where none can be made up.
        zlib_ratio: The bits that the model needs for it over those that zlib does (Carlini et al., arXiv 2012.07805,
            section 4.2, there for whole texts): far below 1 where the model knows it, and it is no mere repetition.
        named: Whom it is about, where somebody said so.
    """

    kind: str
    secret: str
    target: str
    prompts: tuple[str, ...]
    lengths: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    strength: float = 1.0
    places: tuple[str, ...] = ()
    occurrences: int = 1
    exposure: float | None = None
    zlib_ratio: float | None = None
    named: str | None = None

    @classmethod
    def of(cls, record: SecretRecord) -> Finding:
        """Returns a secret that a user names himself."""
        prompts = (record.prompt, *record.rewordings)
        return cls("SECRET", record.target, record.target, prompts, named=record.subject)

    @property
    def subject(self) -> str | None:
        """Whom it is about, where that can be told."""
        return self.named or subject_of(self.prompts[0])

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
        details = {
            "kind": self.kind,
            "secret": self.secret,
            "extraction_strength": self.strength,
            "lengths": list(self.lengths),
            "prefixes": list(self.prefixes),
            "occurrences": self.occurrences,
            "places": list(self.places),
        }
        likely = {"exposure_top": self.exposure, "zlib_ratio": self.zlib_ratio, "named": self.named}
        return {**line, **details, **{name: value for name, value in likely.items() if value is not None}}

    @classmethod
    def from_dict(cls, line: Mapping[str, Any]) -> Finding:
        """Reads what `to_dict` wrote."""
        return cls(
            kind=line["kind"],
            secret=line["secret"],
            target=line["target"],
            prompts=(line["prompt"], *line.get("rephrase_prompt", ())),
            lengths=tuple(line["lengths"]),
            prefixes=tuple(line["prefixes"]),
            strength=line["extraction_strength"],
            places=tuple(line["places"]),
            occurrences=line["occurrences"],
            exposure=line.get("exposure_top"),
            zlib_ratio=line.get("zlib_ratio"),
            named=line.get("named"),
        )


@dataclass
class Findings:
    """What was found so far, each secret once.

    Attributes:
        by_target: The findings by their targets: the same number written otherwise comes out by itself, and has to be
            forgotten by itself.
    """

    by_target: dict[str, Finding] = field(default_factory=dict)

    def add(self, occurrence: Occurrence, extractions: Mapping[str, Extraction]) -> bool:
        """Adds a candidate in one place; returns whether the model gives it away there."""
        whole = {
            name: extractions[name].prompt for name in PROMPT_ORDER if name in extractions and extractions[name].whole
        }
        if not whole:
            return False
        pairs = {name: as_request(prompt, occurrence.secret) for name, prompt in whole.items()}
        # What is glued to the first character of its text has no word in front: it is asked for behind a space.
        requests = {name: pair for name, pair in pairs.items() if pair is not None}
        if not requests:
            requests = {name: (prompt.rstrip(), occurrence.secret) for name, prompt in whole.items()}
        for target in dict.fromkeys(target for _, target in requests.values()):
            prompts = {prompt: name for name, (prompt, each) in reversed(requests.items()) if each == target}
            new = Finding(
                kind=occurrence.kind,
                secret=occurrence.secret,
                target=target,
                prompts=tuple(prompts),
                lengths=tuple(prompts.values()),
                prefixes=tuple(whole),
                strength=max(each.strength for each in extractions.values()),
                places=(f"{occurrence.source}:{occurrence.line}",),
            )
            known = self.by_target.get(target)
            self.put(_merged(new) if known is None else _merged(known, new))
        return True

    def put(self, finding: Finding) -> None:
        """Adds a finding, in the place of one of the same target."""
        self.by_target[finding.target] = finding

    def __iter__(self) -> Iterator[Finding]:
        """Goes through the findings in the order in which they were found."""
        return iter(self.by_target.values())

    def __len__(self) -> int:
        return len(self.by_target)


def _merged(*findings: Finding) -> Finding:
    """All in one, the prompts that say what it is in fewest words first."""
    lengths: dict[str, str] = {}
    for finding in findings:
        for prompt, name in zip(finding.prompts, finding.lengths, strict=True):
            lengths.setdefault(prompt, name)
    prompts = sorted(lengths, key=lambda prompt: (PROMPT_ORDER.index(lengths[prompt]), len(prompt), prompt))[:_PROMPTS]
    return replace(
        findings[0],
        prompts=tuple(prompts),
        lengths=tuple(lengths[prompt] for prompt in prompts),
        prefixes=tuple(name for name in PROMPT_ORDER if any(name in finding.prefixes for finding in findings)),
        strength=max(finding.strength for finding in findings),
        places=tuple(place for finding in findings for place in finding.places)[:_PLACES],
        occurrences=sum(finding.occurrences for finding in findings),
    )
