"""Text that a model made, kept beside its second moments: made once, and the same for the model after an edit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..atomic_write import replacing
from ..errors import InputError
from ..model.processes import agreed, writer_first
from ..model.tensors import fingerprint
from .ordinary_text import SAMPLED, TextSource, sequences_of

# Rows of the embeddings that stand for all of them.
_ROWS = 256


def text_stats_folder(
    model: nn.Module, source: TextSource, stats_dir: str | Path, model_name: str | None = None
) -> Path:
    """Returns where the statistics of one model on one text lie.

    Args:
        model: The model; the last part of its own name is part of the path.
        source: The ordinary text.
        stats_dir: Where all of them lie.
        model_name: What to call the model instead.
    """
    name = model_name or Path(str(getattr(model.config, "_name_or_path", "model"))).name
    return Path(stats_dir).expanduser() / name / f"{source.label}_stats"


def kept_sequences(
    model: nn.Module,
    tok: Any,
    source: TextSource,
    *,
    stats_dir: str | Path,
    model_name: str | None = None,
    progress: bool = False,
) -> Iterable[Sequence[int]]:
    """Returns token sequences of a source, of which those that the model makes itself are kept in a file.

    Args:
        model: The model.
        tok: Its tokenizer.
        source: The ordinary text.
        stats_dir: Where the statistics lie.
        model_name: See `text_stats_folder`.
        progress: Show a progress bar while text is made.

    Raises:
        InputError: When the source, or the file, cannot be read.
    """
    if source.name != SAMPLED:
        return sequences_of(model, tok, source, progress=progress)
    folder = text_stats_folder(model, source, stats_dir, model_name)
    path = folder / f"text_{_vocabulary(model)}_{source.n_samples}_{source.max_tokens}_{source.seed}.npy"
    if not agreed(path.is_file()):
        made = np.array([list(ids) for ids in sequences_of(model, tok, source, progress=progress)], dtype=np.int64)
        with writer_first():  # of processes that share a disk all but one find the file there
            if not path.is_file():
                with replacing(path) as file:
                    np.save(file, made)
    try:
        rows: list[list[int]] = np.load(path, allow_pickle=False).tolist()
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is no file of token ids ({error}); delete it to have the text made anew.") from error
    return rows


def _vocabulary(model: nn.Module) -> str:
    """What tells the tokens of one model from another's of the same name; no method edits it."""
    weight = model.get_input_embeddings().weight  # type: ignore[operator]
    return f"{len(weight)}-{'offloaded' if weight.is_meta else fingerprint(weight[:_ROWS])[:8]}"
