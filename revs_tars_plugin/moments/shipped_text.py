"""Text that a model made once, kept in the package: sampling it takes longer than the first edit of a small model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from torch import nn

from ..model.tensors import fingerprint

FOLDER = Path(__file__).with_name("sampled_text")
# What every file holds: as much as the packaged settings ask for, of their seed.
SAMPLES, TOKENS, SEED = 64, 128, 0


def shipped_file(model: nn.Module) -> Path:
    """Returns where a model's text lies, or would: its name tells the model's weights from others, to the bit."""
    weights = "\n".join(fingerprint(weight) for weight in model.parameters())
    return FOLDER / f"{_first(model)}-{hashlib.sha256(weights.encode()).hexdigest()[:16]}.npy"


def shipped_text(model: nn.Module, n_samples: int, max_tokens: int, seed: int) -> list[list[int]] | None:
    """Returns so many texts that the model made, as token ids, where they are shipped; else None."""
    if (n_samples, max_tokens, seed) != (SAMPLES, TOKENS, SEED) or any(each.is_meta for each in model.parameters()):
        return None
    # All weights are looked at only where the embeddings are those of a model that has such a text.
    if not list(FOLDER.glob(f"{_first(model)}-*.npy")):
        return None
    file = shipped_file(model)
    rows: list[list[int]] = np.load(file, allow_pickle=False).tolist() if file.is_file() else []
    return rows or None


def _first(model: nn.Module) -> str:
    return fingerprint(model.get_input_embeddings().weight)[:16]  # type: ignore[operator]
