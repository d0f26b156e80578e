"""Writes docs/hparams.md, the reference of all settings, from the dataclasses. Run: `make docs`."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from pathlib import Path

from docstring_parser import parse

from revs_tars_plugin import REVSHyperParams, TARSHyperParams
from revs_tars_plugin.ft_l_delete import FTLDeleteHyperParams
from revs_tars_plugin.host.memit_delete import MEMITDeleteHyperParams
from revs_tars_plugin.hyperparams import UnlearnHyperParams

_TARGET = Path(__file__).parent / "hparams.md"
_HEADER = """# Settings

Generated from the dataclasses by `python docs/hparams_reference.py`. A YAML under `hparams/` holds these keys; on the
command line `--set KEY=VALUE` changes one. Unknown keys, wrong types and values out of range are refused with a
sentence that names them. Ranks count from 0, the most likely token, and are absolute, or a fraction of the vocabulary
when below 1.
"""


def reference() -> str:
    """Returns the whole document."""
    parts = [_HEADER, _section("All methods", UnlearnHyperParams)]
    for kind in (REVSHyperParams, TARSHyperParams, FTLDeleteHyperParams, MEMITDeleteHyperParams):
        parts.append(_section(kind.ALGORITHM, kind))
    return "\n".join(parts)


def _section(title: str, kind: type[UnlearnHyperParams]) -> str:
    documented = parse(kind.__doc__ or "")
    meaning = {item.arg_name: " ".join((item.description or "").split()) for item in documented.params}
    shared = set() if kind is UnlearnHyperParams else {item.name for item in fields(UnlearnHyperParams)}
    rows = [
        f"| `{item.name}` | {str(item.type).replace(' | ', ' or ')} | {_default(item)} | {meaning[item.name]} |"
        for item in fields(kind)
        if item.name not in shared
    ]
    lines = [f"## {title}", "", documented.short_description or "", "", "| key | type | default | meaning |"]
    return "\n".join([*lines, "|---|---|---|---|", *rows, ""])


def _default(item: Field) -> str:
    if item.default is not MISSING:
        return f"`{item.default!r}`" if item.default != "" else "empty"
    if item.default_factory is not MISSING:
        return f"`{item.default_factory()!r}`"
    return "needed"


if __name__ == "__main__":
    _TARGET.write_text(reference(), encoding="utf-8")
