"""What an edit cost: how far next-token distributions have moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import InputError
from ..model.forward import next_token_logits, selected_logits
from ..model.processes import shared


def next_token_log_probabilities(
    model: nn.Module, tok: Any, prompts: Sequence[str], batch_size: int = 8
) -> Float[Tensor, "n vocabulary"]:
    """Returns the log-probabilities of every token after each prompt, in nats, float32, on the CPU."""
    sequences = [tok(prompt)["input_ids"] for prompt in prompts]
    with torch.no_grad():
        parts = [
            next_token_logits(model, sequences[start : start + batch_size]).log_softmax(dim=-1).cpu()
            for start in range(0, len(sequences), batch_size)
        ]
    return torch.cat(parts)


def kl_divergence(
    original: Float[Tensor, "n vocabulary"], edited: Float[Tensor, "n vocabulary"]
) -> Float[Tensor, " n"]:
    """Returns KL(original || edited) in nats for each row of log-probabilities."""
    return (original.exp() * (original - edited)).sum(dim=-1)


@dataclass(frozen=True)
class TextIntegrity:
    """How far a model's next-token distributions on ordinary text moved, over positions.

    Attributes:
        kl_median: Median of KL(original || edited), nats.
        kl_mean: Mean of KL(original || edited), nats.
        top1_agreement: Share of positions with the same most likely token.
        perplexity_before: The original model's perplexity on the text.
        perplexity_after: The edited model's perplexity on it.
        divergences: KL(original || edited) at every position, nats.
    """

    kl_median: float
    kl_mean: float
    top1_agreement: float
    perplexity_before: float
    perplexity_after: float
    divergences: tuple[float, ...]

    def summary(self) -> dict[str, float]:
        """Returns the figures over all positions by name."""
        return {name: value for name, value in vars(self).items() if name != "divergences"}


class OrdinaryText:
    """Chunks of text with the distributions of the unedited model, to compare edited ones with."""

    def __init__(self, model: nn.Module, sequences: Sequence[Sequence[int]]) -> None:
        """Runs the unedited model over the text; its distributions are kept, 4 V bytes a position."""
        self.sequences = [list(sequence) for sequence in sequences]
        # In every process all of it: it may be compared with where each works by itself.
        self._before = [self._log_probabilities(model, sequence) for sequence in self.sequences]

    @classmethod
    def of(cls, model: nn.Module, tok: Any, texts: Sequence[str], most: int = 256) -> OrdinaryText:
        """Takes the first tokens of each text, at most so many; texts of a single token are left out.

        Raises:
            InputError: When nothing is left.
        """
        sequences = [tok(text)["input_ids"][:most] for text in texts]
        sequences = [sequence for sequence in sequences if len(sequence) > 1]
        if not sequences:
            raise InputError("corpus holds no text of at least two tokens; give ordinary sentences.")
        return cls(model, sequences)

    @property
    def vocabulary_size(self) -> int:
        """V of the model it was made with."""
        return int(self._before[0].shape[-1])

    @staticmethod
    @torch.no_grad()
    def _log_probabilities(model: nn.Module, sequence: Sequence[int]) -> Float[Tensor, "positions vocabulary"]:
        picks = [(0, position) for position in range(len(sequence))]
        return selected_logits(model, [sequence], picks).log_softmax(dim=-1).cpu()

    def compare(self, model: nn.Module) -> TextIntegrity:
        """Runs an edited model over the same text."""

        def read(index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            before, after = self._before[index], self._log_probabilities(model, self.sequences[index])
            following = torch.tensor(self.sequences[index][1:])[:, None]
            surprise_before, surprise_after = (-values[:-1].gather(1, following) for values in (before, after))
            same = before.argmax(-1) == after.argmax(-1)
            return kl_divergence(before, after), same, surprise_before, surprise_after

        divergences, same, before_nll, after_nll = zip(*shared(read, range(len(self.sequences))), strict=True)
        kl = torch.cat(divergences)
        return TextIntegrity(
            kl_median=float(kl.median()),
            kl_mean=float(kl.mean()),
            top1_agreement=float(torch.cat(same).float().mean()),
            perplexity_before=float(torch.cat(before_nll).mean().exp()),
            perplexity_after=float(torch.cat(after_nll).mean().exp()),
            divergences=tuple(kl.tolist()),
        )
