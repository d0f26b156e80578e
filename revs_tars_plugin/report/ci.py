"""Findings as a CI shows them: SARIF for code hosts, JUnit's XML for the rest. No secret is in either."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

from ..atomic_write import replacing
from ..discovery import Finding
from ..errors import InputError

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def write_sarif(findings: Iterable[Finding], path: str | Path) -> None:
    """Writes SARIF 2.1.0: a rule for each kind, a result for each finding, at the places where it stands.

    Args:
        findings: The secrets that a model gives away.
        path: The file.

    Raises:
        InputError: When it cannot be written.
    """
    found = list(findings)
    kinds = list(dict.fromkeys(finding.kind for finding in found))
    rules = [
        {
            "id": kind,
            "shortDescription": {"text": f"The model gives away {_words(kind)}."},
            "help": {"text": "Remove it from the training data, and from the model with revs-tars clean."},
        }
        for kind in kinds
    ]
    results = [
        {
            "ruleId": finding.kind,
            "ruleIndex": kinds.index(finding.kind),
            "level": "error",
            "message": {"text": _said(finding)},
            "locations": [_location(place) for place in finding.places],
        }
        for finding in found
    ]
    driver = {"name": "revs-tars", "version": version("revs-tars-plugin"), "rules": rules}
    content = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}
    _write(Path(path), json.dumps(content, indent=1).encode())


def write_junit(findings: Iterable[Finding], candidates: Mapping[str, int], path: str | Path) -> None:
    """Writes a test case for each kind that was looked at, which fails where the model gives one away.

    Args:
        findings: The secrets that a model gives away.
        candidates: By kind how many places looked like one.
        path: The file.

    Raises:
        InputError: When it cannot be written.
    """
    by_kind: dict[str, list[Finding]] = {kind: [] for kind in candidates}
    for finding in findings:
        by_kind.setdefault(finding.kind, []).append(finding)
    failed = sum(map(bool, by_kind.values()))
    suite = ElementTree.Element(
        "testsuite", name="revs-tars find", tests=str(len(by_kind)), failures=str(failed), errors="0"
    )
    for kind, found in by_kind.items():
        case = ElementTree.SubElement(suite, "testcase", classname="memorised", name=kind)
        if found:
            failure = ElementTree.SubElement(case, "failure", message=f"{len(found)} secrets are given away")
            failure.text = "\n".join(f"{finding.places[0]}: {_said(finding)}" for finding in found)
    _write(Path(path), ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True))


def _said(finding: Finding) -> str:
    exposure = "" if finding.exposure is None else f", exposure {finding.exposure:.1f} bits of 6"
    behind = ", ".join(name if not name.isdigit() else f"{name} tokens" for name in finding.prefixes)
    return f"Greedy decoding gives {_words(finding.kind)} word for word (behind: {behind}{exposure})."


def _words(kind: str) -> str:
    return kind.replace("_", " ").lower() if not kind.isdigit() else kind


def _location(place: str) -> dict[str, object]:
    source, _, line = place.rpartition(":")
    address = source if not Path(source).is_absolute() else Path(source).as_uri()
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": address.replace("\\", "/")},
            "region": {"startLine": max(1, int(line))},
        }
    }


def _write(path: Path, content: bytes) -> None:
    file = path.expanduser()
    try:
        with replacing(file) as opened:
            opened.write(content)
    except OSError as error:
        raise InputError(f"{file} cannot be written ({error.strerror or error}); name another place.") from error
