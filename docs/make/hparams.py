"""Writes docs/reference/hparams.md, the reference of all settings, from the dataclasses. Run: `make docs`."""

from __future__ import annotations

import ast
from dataclasses import MISSING, Field, fields
from pathlib import Path

from docstring_parser import parse

from revs_tars_plugin.host.registry import REGISTERED
from revs_tars_plugin.hyperparams import UnlearnHyperParams

_TARGET = Path(__file__).parents[1] / "reference" / "hparams.md"
_HEADER = """# Settings

Generated from the dataclasses by `python docs/make/hparams.py`. A YAML under `hparams/` holds these keys; on the
command line `--set KEY=VALUE` changes one. Unknown keys, wrong types and values out of range are refused with a
sentence that names them. Ranks count from 0, the most likely token, and are absolute, or a fraction of the vocabulary
when below 1.
"""


def reference() -> str:
    """Returns the whole document."""
    parts = [_HEADER, _section("All methods", UnlearnHyperParams)]
    parts += [_section(name, method.hyperparams) for name, method in REGISTERED.items()]
    return "\n".join(parts)


def _section(title: str, kind: type[UnlearnHyperParams]) -> str:
    documented = parse(kind.__doc__ or "")
    meaning = {item.arg_name: " ".join((item.description or "").split()) for item in documented.params}
    shared = set() if kind is UnlearnHyperParams else {item.name for item in fields(UnlearnHyperParams)}
    rows = [
        f"| `{item.name}` | {_type(item)} | {_default(item)} | {meaning[item.name]} |"
        for item in fields(kind)
        if item.name not in shared
    ]
    lines = [f"## {title}", "", documented.short_description or "", "", "| key | type | default | meaning |"]
    return "\n".join([*lines, "|---|---|---|---|", *rows, ""])


def _type(item: Field) -> str:
    """A type as people read it; the choices of a `Literal` are named one by one."""
    text = str(item.type)
    if text.startswith("Literal["):
        return " or ".join(f"`{choice}`" for choice in ast.literal_eval(text.removeprefix("Literal")))
    return text.replace(" | ", " or ")


def _default(item: Field) -> str:
    if item.default is not MISSING:
        return f"`{item.default!r}`" if item.default != "" else "empty"
    if item.default_factory is not MISSING:
        return f"`{item.default_factory()!r}`"
    return "needed"


if __name__ == "__main__":
    _TARGET.write_text(reference(), encoding="utf-8")
