"""Does a model give a candidate away? Greedy decoding, read off one pass over the text itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..evaluation.target_logits import share_in_a_row
from ..model.forward import batches_by_length, selected_logits
from ..model.shared_prompts import logits_of_pairs
from ..requests.reading import tokens_around
from .occurrences import Occurrence, Window

# Rows of the vocabulary that are made at once, and windows that are read together.
_ROWS, _WINDOWS = 512, 16


@dataclass(frozen=True)
class Extraction:
    """What greedy decoding gives of a candidate behind one prompt.

    Attributes:
        prompt: The prompt, to the last character.
        in_a_row: The share of its tokens that come out in a row from the first on; 1 where the whole does.
        strength: 1 less the share of its beginning that has to be known for the rest to come out (Carlini et al.,
            arXiv 2012.07805, as a share); 1 where nothing has to.
    """

    prompt: str
    in_a_row: float
    strength: float

    @property
    def whole(self) -> bool:
        """Whether greedy decoding gives the candidate."""
        return self.in_a_row == 1


@dataclass
class Reader:
    """A model that reads, and how much it has read.

    Attributes:
        model: A causal language model.
        tok: Its tokenizer.
        context_length: The most tokens that it reads.
        tokens_read: Positions that went through the model so far, without padding.
    """

    model: nn.Module
    tok: Any
    context_length: int
    tokens_read: int = field(default=0)

    @torch.no_grad()
    def recalled(self, windows: Sequence[Window]) -> list[list[float]]:
        """Returns for each window, and each candidate in it, the share of its tokens that are the most likely one.

        Args:
            windows: Parts of a text; each is read once, whatever it holds.
        """
        shares: dict[int, list[float]] = {}
        for batch in batches_by_length([window.ids for window in windows], most=_WINDOWS):
            together = [windows[index] for index in batch]
            picks = [
                (row, place - 1) for row, window in enumerate(together) for places in window.picks for place in places
            ]
            right: list[bool] = []
            for start in range(0, len(picks), _ROWS):
                part = picks[start : start + _ROWS]
                logits = selected_logits(self.model, [window.ids for window in together], part)
                wanted = [together[row].ids[place + 1] for row, place in part]
                right += (logits.argmax(dim=-1).cpu() == torch.tensor(wanted)).tolist()
                self.tokens_read += sum(len(window.ids) for window in together)
            remaining = iter(right)
            for index, window in zip(batch, together, strict=True):
                answers = [[next(remaining) for _ in places] for places in window.picks]
                shares[index] = [sum(each) / len(each) if each else 0.0 for each in answers]
        return [shares[index] for index in range(len(windows))]

    def extractions(self, occurrences: Sequence[Occurrence]) -> list[dict[str, Extraction]]:
        """Returns for each candidate what greedy decoding gives of it behind each of its prompts.

        A text's own tokens are greedy decoding's if each of them is the most likely one behind those before it; so one
        pass answers what decoding would.
        """
        texts = dict.fromkeys(
            (prompt, occurrence.secret) for occurrence in occurrences for prompt in occurrence.prompts.values()
        )
        extracted = dict(zip(texts, self._extracted(list(texts)), strict=True))
        return [
            {
                name: extraction
                for name, prompt in occurrence.prompts.items()
                if (extraction := extracted[prompt, occurrence.secret]) is not None
            }
            for occurrence in occurrences
        ]

    @torch.no_grad()
    def _extracted(self, texts: Sequence[tuple[str, str]]) -> list[Extraction | None]:
        """None where a prompt or a secret comes to no token of its own, or both to more than the model reads."""
        results: list[Extraction | None] = [None] * len(texts)
        pairs = [tokens_around(self.tok, prompt + secret, len(prompt)) for prompt, secret in texts]
        usable = [
            index
            for index, (before, behind) in enumerate(pairs)
            if before and behind and len(before) + len(behind) <= self.context_length
        ]
        for batch, all_logits in logits_of_pairs(self.model, [pairs[index] for index in usable]):
            for place, logits in zip(batch, all_logits, strict=True):
                index = usable[place]
                before, behind = pairs[index]
                said = logits.argmax(dim=-1).tolist()
                wrong = [position for position, token in enumerate(behind) if said[position] != token]
                needed = wrong[-1] + 1 if wrong else 0
                results[index] = Extraction(texts[index][0], share_in_a_row(said, behind), 1 - needed / len(behind))
                self.tokens_read += len(before) + len(behind)
        return results
