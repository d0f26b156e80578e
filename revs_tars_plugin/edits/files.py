"""Edits on disk: one safetensors file each, written whole or not at all, and read only when every byte is as it was."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..atomic_write import replacing
from ..errors import EditFileError
from .weight_edits import LowRankEdit, NeuronEdit, WeightEdit

FORMAT = "revs-tars-edit"
VERSION = 1
# No layer has so many neurons.
_WIDEST = 1 << 24
_TENSORS = {"neurons": ("indices", "before", "after"), "low-rank": ("keys", "values")}


@dataclass(frozen=True)
class SavedEdit:
    """What stands in one file.

    Attributes:
        method: The algorithm's name.
        edits: One entry per changed weight.
        settings: The method's settings, plain values.
        requests: What was asked for, secrets and all; None where the file does not say.
        packed: Whether it was made for packed weights.
    """

    method: str
    edits: tuple[WeightEdit, ...]
    settings: Mapping[str, Any]
    requests: tuple[Mapping[str, Any], ...] | None = None
    packed: bool = False


def write_edit(path: str | Path, saved: SavedEdit) -> None:
    """Writes an edit into one safetensors file; a crash on the way leaves the old file or none.

    Args:
        path: The file, `.safetensors` by custom.
        saved: What is written.

    Raises:
        EditFileError: When it cannot be written; what stood there before is as it was.
    """
    from safetensors.torch import save

    file = Path(path).expanduser()
    tensors: dict[str, Tensor] = {}
    entries = []
    for index, edit in enumerate(saved.edits):
        entry, parts = _entry(edit)
        entries.append(entry)
        tensors.update({f"{index}.{name}": value.contiguous() for name, value in parts.items()})
    content: dict[str, Any] = {
        "method": saved.method,
        "settings": dict(saved.settings),
        "edits": entries,
        "versions": {name: _version(name) for name in ("revs-tars-plugin", "torch", "transformers", "safetensors")},
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    if saved.packed:
        content["packed"] = True
    if saved.requests is not None:
        content["requests"] = [dict(request) for request in saved.requests]
    text = json.dumps(content)
    metadata = {"format": FORMAT, "version": str(VERSION), "content": text, "digest": _digest(text, tensors)}
    try:
        with replacing(file) as opened:
            opened.write(save(tensors, metadata))
    except OSError as error:
        raise EditFileError(
            f"{file} cannot be written ({error.strerror or error}); free some space or name another place."
        ) from error


def read_edit(path: str | Path) -> SavedEdit:
    """Reads what `write_edit` wrote; nothing in the file is ever executed.

    Raises:
        EditFileError: When the file is missing, truncated, of another kind or a newer version, or was changed.
    """
    from safetensors import SafetensorError, safe_open

    file = Path(path).expanduser()
    if not file.is_file():
        raise EditFileError(f"There is no file {file}; name one that EditSet.save wrote.")
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise EditFileError(
                    f"{file} is a safetensors file, but no saved edit; name one that EditSet.save wrote."
                )
            _check_version(file, metadata.get("version"))
            # Copied, since what is mapped into memory changes with the file, whatever its digest was.
            tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, EditFileError):
            raise
        raise EditFileError(f"{file} is no whole safetensors file ({error}); take it from a backup.") from error
    text = metadata.get("content", "")
    if metadata.get("digest") != _digest(text, tensors):
        raise EditFileError(f"{file} is damaged: its digest does not fit; take it from a backup.")
    try:
        return _saved(json.loads(text), tensors)
    # Whoever knows how a digest is made can write anything behind it.
    except (ValueError, TypeError, KeyError, RecursionError, RuntimeError, OverflowError) as error:
        raise EditFileError(
            f"{file} is no edit that EditSet.save wrote ({type(error).__name__}: {error}); ask whoever made it."
        ) from error


def _saved(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SavedEdit:
    """Reads what a file says.

    Raises:
        ValueError: When something in it is of another kind or shape than `write_edit` writes.
        TypeError: Likewise.
        KeyError: When something is missing.
    """
    edits = tuple(_edit(entry, index, tensors) for index, entry in enumerate(content["edits"]))
    method, settings, requests = content["method"], content["settings"], content.get("requests")
    _must(isinstance(method, str) and isinstance(settings, dict), "method and settings")
    alike = isinstance(requests, list) and all(isinstance(request, dict) for request in requests)
    _must(requests is None or alike, "requests")
    return SavedEdit(
        method,
        edits,
        settings,
        None if requests is None else tuple(requests),
        packed=bool(content.get("packed", False)),
    )


def _entry(edit: WeightEdit) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if isinstance(edit, NeuronEdit):
        entry: dict[str, Any] = {"kind": "neurons", "fingerprint": _digest(edit.name, {"before": edit.before})}
    else:
        assert isinstance(edit, LowRankEdit)
        entry = {"kind": "low-rank", "fingerprint": edit.fingerprint}
    entry.update(name=edit.name, neuron_dim=edit.neuron_dim, transposed=edit.transposed)
    if isinstance(edit, NeuronEdit):
        entry["width"] = edit.width
    return entry, {name: getattr(edit, name) for name in _TENSORS[entry["kind"]]}


def _edit(entry: Mapping[str, Any], index: int, tensors: Mapping[str, Tensor]) -> WeightEdit:
    kind = entry["kind"]
    parts: dict[str, Any] = {name: tensors[f"{index}.{name}"] for name in _TENSORS[kind]}
    parts.update({name: entry[name] for name in ("name", "neuron_dim", "transposed")})
    _must(isinstance(entry["name"], str) and entry["name"].isprintable(), "name")
    _must(type(entry["neuron_dim"]) is int and entry["neuron_dim"] in (0, 1), "neuron_dim")
    _must(isinstance(entry["transposed"], bool), "transposed")
    if kind == "neurons":
        _must(type(entry["width"]) is int, "width")
        _check_neurons(parts["indices"], parts["before"], parts["after"], entry["width"])
        return NeuronEdit(**parts, width=entry["width"])
    _must(isinstance(entry["fingerprint"], str), "fingerprint")
    keys, values = parts["keys"], parts["values"]
    _must(all(each.dtype == torch.float32 and each.ndim == 2 and each.numel() for each in (keys, values)), "products")
    _must(keys.shape[1] == len(values) and bool(keys.isfinite().all() and values.isfinite().all()), "products")
    return LowRankEdit(**parts, fingerprint=entry["fingerprint"])


def _check_neurons(indices: Tensor, before: Tensor, after: Tensor, width: int) -> None:
    _must(0 < width <= _WIDEST, "width")
    _must(indices.dtype == torch.int64 and indices.ndim == 1 and len(indices) > 0, "indices")
    _must(bool(((indices >= 0) & (indices < width)).all()) and len(set(indices.tolist())) == len(indices), "indices")
    _must(before.ndim == 2 and before.shape == after.shape and len(before) == len(indices), "before and after")
    _must(before.dtype == after.dtype and after.is_floating_point(), "before and after")
    _must(bool(after.float().isfinite().all()), "before and after")


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"its {what} cannot be used")


def _check_version(file: Path, written: str | None) -> None:
    if written is None or not written.isdigit() or int(written) > VERSION:
        raise EditFileError(
            f"{file} is of format version {written}, this library reads up to {VERSION}; update revs-tars-plugin."
        )


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Of a text and of names, kinds, shapes and bits of tensors: safetensors itself would not see a flipped bit."""
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
