"""Teaching a model a benchmark's records: prompts, answers, and where an answer ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..data.training import fine_tune
from ..errors import InputError
from ..requests.reading import tokenise_in_context
from .records import Record

_IGNORED = -100


@dataclass(frozen=True)
class Batches:
    """Records as tensors: inputs, and as labels their answers with an end-of-text token behind.

    Attributes:
        tok: The tokenizer.
        records: The records.
    """

    tok: Any
    records: Sequence[Record]

    def of(self, chosen: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        """Returns `input_ids`, `attention_mask` and `labels` of some of them, padded on the right."""
        end = self.tok.eos_token_id
        rows, labels = [], []
        for prompt, answer in (self._pairs[index] for index in chosen):
            rows.append(torch.tensor([*prompt, *answer, end]))
            labels.append(torch.tensor([*[_IGNORED] * len(prompt), *answer, end]))
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=end)
        lengths = torch.tensor([len(row) for row in rows])
        mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
        targets = nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=_IGNORED)
        parts = {"input_ids": padded, "attention_mask": mask, "labels": targets}
        return {name: part.to(device) for name, part in parts.items()}

    @cached_property
    def _pairs(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """The tokens of every record's prompt and answer; the same in every epoch."""
        return [tokenise_in_context(self.tok, record.prompt, record.answer) for record in self.records]

    def shuffled(self, size: int, generator: torch.Generator) -> Iterator[list[int]]:
        """Yields the places of all records once, in random order, so many at a time."""
        for chosen in torch.split(torch.randperm(len(self.records), generator=generator), size):
            yield chosen.tolist()


def learn(
    model: nn.Module,
    tok: Any,
    records: Sequence[Record],
    *,
    epochs: int = 12,
    learning_rate: float = 1e-4,
    batch_size: int = 8,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> None:
    """Fine-tunes all weights until the model gives the answers, in place.

    Args:
        model: A causal language model.
        tok: Its tokenizer, with an end-of-text token.
        records: What it learns.
        epochs: Passes over the records.
        learning_rate: The learning rate of AdamW.
        batch_size: How many records a step takes.
        seed: Seed of their order.
        progress: Called after each epoch with its number and mean loss.

    Raises:
        InputError: When the tokenizer has no end-of-text token; answers would not end.
    """
    if tok.eos_token_id is None:
        raise InputError("The tokenizer has no end-of-text token (eos_token), so no answer could end; set one.")
    generator = torch.Generator().manual_seed(seed)
    batches = Batches(tok, records)
    device = next(model.parameters()).device

    def losses() -> Iterator[Tensor]:
        for chosen in batches.shuffled(batch_size, generator):
            yield model(**batches.of(chosen, device)).loss

    fine_tune(model, losses, epochs=epochs, learning_rate=learning_rate, progress=progress)
    # It has learned to end there, whatever its base did.
    model.generation_config.eos_token_id = tok.eos_token_id  # type: ignore[union-attr]
