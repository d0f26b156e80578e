"""How likely a model finds each token of texts behind prompts, with what kind of place each token fills."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import nn

from ..model.forward import batches_by_length, continuation_logits
from ..model.processes import shared
from ..requests.made_up import FIXED
from ..requests.reading import token_texts, tokenise_in_context

# How a kind begins that belongs to the form itself.
OF_THE_FORM = '"'
DIGITS, FIRST, FURTHER = "digits", "first piece of a word", "further piece of a word"
# Probabilities below this one are alike.
NEVER = 1e-30
_PART_OF_A_LETTER = "\N{REPLACEMENT CHARACTER}"


class Text:
    """One text behind a prompt, token by token.

    Attributes:
        prompt_ids: The prompt's tokens.
        ids: The text's.
        kinds: What kind of place each of these fills; see `kinds_of`.
    """

    def __init__(self, prompt_ids: tuple[int, ...], ids: tuple[int, ...], tok: Any) -> None:
        """Keeps them."""
        self.prompt_ids, self.ids, self._tok = prompt_ids, ids, tok

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """Read off the tokens where they are asked for."""
        return kinds_of(self._tok, self.ids)

    @classmethod
    def behind(cls, prompt: str, text: str, tok: Any) -> Text:
        """Tokenises a text behind a prompt."""
        return cls(*tokenise_in_context(tok, prompt, text), tok)


Values = dict[Text, tuple[float, ...]]


@torch.no_grad()
def log_probabilities(model: nn.Module, texts: Sequence[Text]) -> Values:
    """Returns the log-probability of every token of some texts, nats.

    Args:
        model: A causal language model.
        texts: The texts.
    """

    def read(batch: Sequence[int]) -> list[tuple[float, ...]]:
        all_logits = continuation_logits(model, [(texts[index].prompt_ids, texts[index].ids) for index in batch])
        values = []
        for text, logits in zip((texts[index] for index in batch), all_logits, strict=True):
            own = logits.gather(1, torch.tensor(text.ids, device=logits.device)[:, None])[:, 0]
            values.append(tuple((own - logits.logsumexp(dim=-1)).tolist()))
        return values

    # Whole texts, though many share a prompt: from the second reading on only their upper layers are computed.
    batches = batches_by_length([text.prompt_ids + text.ids for text in texts])
    found = shared(read, batches)
    return {
        texts[index]: values
        for batch, of_batch in zip(batches, found, strict=True)
        for index, values in zip(batch, of_batch, strict=True)
    }


def log_mean(values: Iterable[float]) -> float:
    """Returns the logarithm of the mean of probabilities whose logarithms are given, nats."""
    return math.log(max(statistics.fmean(map(math.exp, values)), NEVER))


def kinds_of(tok: Any, ids: Sequence[int]) -> tuple[str, ...]:
    """Returns for each token of a secret what kind of place it fills: digits, a piece of a word, or the form itself."""
    kinds = []
    before, provider = " ", False
    for text in token_texts(tok, ids):
        bare = text.strip()
        # A mail provider ends where a space comes, which many tokenizers put in front of the next word.
        provider = provider and not text[:1].isspace()
        if bare.isdigit() and not provider:
            kind = f"{DIGITS} {len(bare)}"
        elif _PART_OF_A_LETTER in bare:
            kind = FURTHER  # tokenizers of bytes cut other scripts' letters into several
        elif provider or FIXED.fullmatch(bare) or not any(map(str.isalnum, bare)):
            kind = f'"{bare}"'  # it belongs to the form; nothing else could stand there
        else:
            kind = FURTHER if before[-1:].isalpha() and not text[:1].isspace() else FIRST
        kinds.append(kind)
        provider = "@" in text or (provider and not text[-1:].isspace())
        before = text
    return tuple(kinds)
