"""Ordinary text to measure on: a file, a data set, or what the model itself says, as token sequences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from ..errors import InputError
from ..model.forward import device_of_ids, sample
from .shipped_text import shipped_text

# The data sets that the host's own statistics know, by its names for them.
_HOST_DATASETS = {
    "wikipedia": ("wikimedia/wikipedia", "20231101.en"),
    "wikitext": ("Salesforce/wikitext", "wikitext-103-raw-v1"),
    "wikitext2": ("Salesforce/wikitext", "wikitext-2-raw-v1"),
}
SAMPLED = "sampled"


@dataclass(frozen=True)
class TextSource:
    """Which ordinary text, and how much of it.

    Attributes:
        name: A text file; a Hugging Face data set by name (its "text" column is streamed); or "sampled": text that the
            model itself makes from nothing, where no text may be had.
        n_samples: How many: paragraphs of the file, rows of the data set, or samples.
        max_tokens: Longer texts are cut.
        seed: For "sampled".
    """

    name: str
    n_samples: int
    max_tokens: int = 128
    seed: int = 0

    @property
    def label(self) -> str:
        """How it is called in the names of files of statistics."""
        return Path(self.name).stem if Path(self.name).suffix else self.name.replace("/", "_")


def sequences_of(model: nn.Module, tok: Any, source: TextSource, *, progress: bool = False) -> Iterator[Sequence[int]]:
    """Yields token sequences of a source, as they are asked for.

    Args:
        model: Where the source is "sampled", it makes the text itself.
        tok: Its tokenizer.
        source: The ordinary text.
        progress: Show a progress bar while it is sampled.

    Raises:
        InputError: When the source cannot be read.
    """
    if source.name == SAMPLED:
        shipped = shipped_text(model, source.n_samples, source.max_tokens, source.seed)
        if shipped is not None:
            return iter(shipped)
        return sample_from_model(model, tok, source.n_samples, source.max_tokens, seed=source.seed, progress=progress)
    path = Path(source.name).expanduser()
    texts = _file_texts(path) if path.suffix else _dataset_texts(source.name)
    tokenised = (tok(text, truncation=True, max_length=source.max_tokens)["input_ids"] for text in texts)
    return islice((ids for ids in tokenised if ids), source.n_samples)


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
    *,
    seed: int,
    batch_size: int = 64,
    progress: bool = False,
) -> Iterator[list[int]]:
    """Yields text that the model makes at temperature 1 from its first token on, the same for the same seed.

    Args:
        model: A causal language model.
        tok: Its tokenizer.
        n_samples: How many texts.
        max_tokens: How long each is, its first token included.
        seed: Seed of a generator of its own.
        batch_size: Texts that are made together.
        progress: Show a progress bar.
    """
    start = tok.bos_token_id if tok.bos_token_id is not None else tok.eos_token_id
    device = device_of_ids(model)
    generator = torch.Generator().manual_seed(seed)
    for first in range(0, n_samples, batch_size):
        ids = torch.full((min(batch_size, n_samples - first), 1), 0 if start is None else start, device=device)
        with tqdm(desc="sampling ordinary text", total=max_tokens - 1, unit="token", disable=not progress) as bar:
            drawn = sample(model, ids, max_tokens - 1, generator, advance=bar.update)
        yield from torch.cat([ids, drawn], dim=1).tolist()
