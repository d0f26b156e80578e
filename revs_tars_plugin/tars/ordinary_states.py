"""What layers read where no concept is meant: ordinary text, and tokens from all over the vocabulary in no order."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import InputError
from ..model.decoder import Decoder
from ..model.matrices import FeedForwardMatrix
from ..moments.kept_text import kept_sequences
from ..moments.ordinary_text import TextSource
from .layer_reading import LayerReading, read_layers
from .tars_hparams import TARSHyperParams

# Texts; and tokens in no order, so many at a time.
_TEXTS, _UNORDERED, _AT_ONCE = 32, 4096, 32
# A neuron this much quieter than its layer's median one is silent.
_SILENT = 0.01


@dataclass(frozen=True)
class OrdinaryStates:
    """What one layer reads.

    Attributes:
        sequences: The texts, as token ids.
        read: What the first matrices get at each position, text by text.
        loudness: Root mean square of what each neuron passes on there.
        silent: Which neurons pass on as good as nothing there, at most positions or altogether.
    """

    sequences: list[tuple[int, ...]]
    read: Float[Tensor, "n d"]
    loudness: Float[Tensor, " f"]
    silent: Bool[Tensor, " f"]

    @classmethod
    def of(cls, sequences: list[tuple[int, ...]], said: LayerReading, unordered: LayerReading) -> OrdinaryStates:
        """Returns them for what was read of ordinary text, and of tokens in no order behind it."""
        sizes = said.passed_on.abs().median(dim=0).values.cpu()
        loudness = said.passed_on.square().mean(dim=0).sqrt().cpu()
        return cls(
            sequences,
            torch.cat([said.read, unordered.read]),
            loudness,
            (sizes < _SILENT * sizes.median()) | (loudness < _SILENT * loudness.median()),
        )

    def without(self, tokens: Sequence[int]) -> Float[Tensor, "n d"]:
        """Returns what is read at all positions but those where these tokens end."""
        kept = torch.ones(len(self.read), dtype=torch.bool)
        start, length = 0, len(tokens)
        for sequence in self.sequences:
            for end in range(length, len(sequence) + 1):
                if sequence[end - length : end] == tuple(tokens):
                    kept[start + end - 1] = False
            start += len(sequence)
        return self.read[kept.to(self.read.device)]


def ordinary_states(
    decoder: Decoder, tok: Any, hparams: TARSHyperParams, firsts: Mapping[int, FeedForwardMatrix]
) -> dict[int, OrdinaryStates]:
    """Reads ordinary text, and tokens in no order, up to the last of some layers.

    Args:
        decoder: The model.
        tok: Its tokenizer.
        hparams: The settings, which name the text.
        firsts: See `read_layers`.

    Raises:
        InputError: When the text cannot be read.
    """
    source = TextSource(hparams.mom2_dataset, hparams.mom2_n_samples, seed=hparams.seed)
    kept = kept_sequences(decoder.model, tok, source, stats_dir=hparams.stats_dir)
    texts = [tuple(map(int, ids)) for ids in islice(kept, _TEXTS)]
    if not texts:
        raise InputError("There is no ordinary text to tell names from; check mom2_dataset.")
    unordered = _unordered(decoder.vocabulary(tok), hparams.seed)
    said, more = (read_layers(decoder, firsts, each, everywhere=True) for each in (texts, unordered))
    return {layer: OrdinaryStates.of([*texts, *unordered], said[layer], more[layer]) for layer in firsts}


def _unordered(vocabulary: int, seed: int) -> list[tuple[int, ...]]:
    """Tokens of the vocabulary in no order, each at most once."""
    tokens = list(range(vocabulary))
    random.Random(seed).shuffle(tokens)
    return [tuple(tokens[start : start + _AT_ONCE]) for start in range(0, min(_UNORDERED, len(tokens)), _AT_ONCE)]
