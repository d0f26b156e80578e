"""Ordinary text to measure on: a file, a data set, or what the model itself says, as token sequences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from .errors import InputError
from .forward import sample

# The data sets that the host's own statistics know, by its names for them.
_HOST_DATASETS = {
    "wikipedia": ("wikimedia/wikipedia", "20231101.en"),
    "wikitext": ("Salesforce/wikitext", "wikitext-103-raw-v1"),
    "wikitext2": ("Salesforce/wikitext", "wikitext-2-raw-v1"),
}
SAMPLED = "sampled"


def source_label(source: str) -> str:
    """Returns how a source of text is called in the names of its files."""
    return Path(source).stem if Path(source).suffix else source.replace("/", "_")


def sequences_of(
    model: nn.Module,
    tok: Any,
    source: str,
    n_samples: int,
    max_tokens: int,
    seed: int,
    *,
    progress: bool = False,
) -> Iterator[Sequence[int]]:
    """Yields token sequences of a source, as they are asked for.

    Args:
        model: Where the source is "sampled", it makes the text itself.
        tok: Its tokenizer.
        source: A text file; a Hugging Face data set by name (its "text" column is streamed); or "sampled".
        n_samples: How many: paragraphs of the file, rows of the data set, or samples.
        max_tokens: Longer texts are cut.
        seed: For "sampled".
        progress: Show a progress bar while it is sampled.

    Raises:
        InputError: When the source cannot be read.
    """
    if source == SAMPLED:
        return sample_from_model(model, tok, n_samples, max_tokens, seed, progress=progress)
    texts = _file_texts(Path(source).expanduser()) if Path(source).suffix else _dataset_texts(source)
    tokenised = (tok(text, truncation=True, max_length=max_tokens)["input_ids"] for text in texts)
    return islice((ids for ids in tokenised if ids), n_samples)


def _file_texts(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                if line.strip():
                    yield line.strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The text file {path} cannot be read: {error}.") from error


def _dataset_texts(name: str) -> Iterator[str]:
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f'Reading the data set "{name}" needs the package datasets: pip install datasets; or name a text file, or '
            f'"{SAMPLED}".'
        ) from error
    path, config = _HOST_DATASETS.get(name, (name, None))
    try:
        rows = datasets.load_dataset(path, config, split="train", streaming=True)
        for row in rows:
            yield row["text"]
    except Exception as error:  # the library raises errors of many kinds for "not there"
        raise InputError(
            f'The data set "{name}" cannot be read ({type(error).__name__}); name a text file instead, or "{SAMPLED}".'
        ) from error


@torch.no_grad()
def sample_from_model(
    model: nn.Module,
    tok: Any,
    n_samples: int,
    max_tokens: int,
    seed: int,
    batch_size: int = 64,
    *,
    progress: bool = False,
) -> Iterator[list[int]]:
    """Yields text that the model makes at temperature 1 from its first token on, the same for the same seed."""
    start = tok.bos_token_id if tok.bos_token_id is not None else tok.eos_token_id
    device = model.get_input_embeddings().weight.device  # type: ignore[operator]
    generator = torch.Generator().manual_seed(seed)
    for first in range(0, n_samples, batch_size):
        ids = torch.full((min(batch_size, n_samples - first), 1), 0 if start is None else start, device=device)
        with tqdm(desc="sampling ordinary text", total=max_tokens - 1, unit="token", disable=not progress) as bar:
            drawn = sample(model, ids, max_tokens - 1, generator, advance=bar.update)
        yield from torch.cat([ids, drawn], dim=1).tolist()
