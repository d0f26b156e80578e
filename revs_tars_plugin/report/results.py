"""Results on disk: what an evaluation, a comparison or a benchmark found, as JSON that the report is made from."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..atomic_write import replacing
from ..edits.edit_set import EditSet
from ..edits.weight_edits import LowRankEdit, NeuronEdit
from ..errors import InputError

FORMAT = "revs-tars-result"
VERSION = 1
# Each with what it must hold.
KINDS = {
    "evaluation": ("model", "edits", "texts", "after"),
    "comparison": ("model", "host", "k", "forgotten", "retained", "rows"),
    "benchmark": ("model", "benchmark", "title", "forgotten", "retained", "rows"),
}
# Settings that name files of the author's machine, or of no interest to a reader.
PRIVATE_SETTINGS = ("model_name", "stats_dir", "retain_texts", "mom2_dataset", "device", "max_length", "batch_size")


def result(kind: str, content: Mapping[str, Any], *, redacted: bool) -> dict[str, Any]:
    """Returns a result with what it needs to be read again: kind, versions, time, and whether texts are masked."""
    packages = ("revs-tars-plugin", "torch", "transformers")
    return {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "redacted": redacted,
        **content,
    }


def write_result(path: str | Path, content: Mapping[str, Any]) -> None:
    """Writes a result, whole or not at all.

    Raises:
        InputError: When it cannot be written.
    """
    file = Path(path).expanduser()
    try:
        with replacing(file) as opened:
            opened.write(json.dumps(content, indent=1, ensure_ascii=False).encode())
    except OSError as error:
        raise InputError(f"{file} cannot be written ({error.strerror or error}); name another place.") from error


def read_result(path: str | Path) -> dict[str, Any]:
    """Reads what `write_result` wrote.

    Raises:
        InputError: When it is no result, or of a newer version.
    """
    file = Path(path).expanduser()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is no JSON ({error}); name a result of evaluate, compare or bench.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("kind") not in KINDS:
        raise InputError(f"{file} is no result of evaluate, compare or bench; write one with their option -o.")
    if content.get("version") != VERSION:
        raise InputError(
            f"{file} is a result of version {content.get('version')}, this library reads {VERSION}; "
            "update revs-tars-plugin or measure again."
        )
    missing = [name for name in (*KINDS[content["kind"]], "created", "versions", "redacted") if name not in content]
    if missing:
        raise InputError(f'{file} has no "{missing[0]}"; it was changed, so measure again.')
    return content


def edit_content(edits: EditSet) -> dict[str, Any]:
    """Returns what a result says of an edit: method, settings, and where it changes how much; nothing of the secret."""
    return {
        "method": edits.method,
        "settings": {name: value for name, value in edits.settings.items() if name not in PRIVATE_SETTINGS},
        "n_changed": edits.n_changed,
        "layers": [
            {"layer": layer, "neurons": neurons, "rank-ones": products}
            for layer, (neurons, products) in sorted(_by_layer(edits).items())
        ],
    }


def _by_layer(edits: EditSet) -> dict[int, tuple[int, int]]:
    """For each layer how many neurons are changed and how many products added."""
    by_layer: dict[int, tuple[int, int]] = {}
    for edit in edits.edits:
        number = re.search(r"\.(\d+)\.", edit.name)
        layer = int(number.group(1)) if number else 0
        neurons, products = by_layer.get(layer, (0, 0))
        if isinstance(edit, NeuronEdit):
            neurons += len(edit.indices)
        elif isinstance(edit, LowRankEdit):
            products += edit.keys.shape[1]
        by_layer[layer] = (neurons, products)
    return by_layer
