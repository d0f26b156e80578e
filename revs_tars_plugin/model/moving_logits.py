"""Logits of vectors that move along fixed directions, as a function of how far they have moved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Tokens that are followed one by one: the likeliest, and those that rise most; all others are followed as one.
_LIKELIEST, _RISING = 1024, 128


@dataclass(frozen=True)
class MovingLogits:
    """Logits after steps `s`: `(fixed + share(s) * (moving - s * responses)) / scale(s) + offsets`.

    Attributes:
        moving: What moves, before anything divides it, shape (n, k).
        responses: What one unit of step takes off it, shape (n, k).
        scale_at: What the final norm divides by after steps of shape (n,), float64.
        fixed: What does not move, shape (n, k); None where there is nothing.
        share_at: How much of what moves gets through a norm behind FF2, float64; None where there is none.
        offsets: What every vector gets whatever its direction, shape (k,) or (n, k); None where there is nothing.
        typical: A typical step for each row, shape (n,).
    """

    moving: Float[Tensor, "n k"]
    responses: Float[Tensor, "n k"]
    scale_at: Callable[[Float[Tensor, " n"]], Float[Tensor, " n"]]
    typical: Float[Tensor, " n"]
    fixed: Float[Tensor, "n k"] | None = None
    share_at: Callable[[Float[Tensor, " n"]], Float[Tensor, " n"]] | None = None
    offsets: Float[Tensor, "*n k"] | None = None

    def at(self, steps: Float[Tensor, " n"]) -> Float[Tensor, "n k"]:
        """Returns the logits after steps, as precise as `moving` is."""
        dtype = self.moving.dtype
        numerators = self.moving - steps[:, None].to(dtype) * self.responses
        if self.share_at is not None:
            numerators = numerators * self.share_at(steps.double())[:, None].to(dtype)
        if self.fixed is not None:
            numerators = numerators + self.fixed
        logits = numerators / self.scale_at(steps.double())[:, None].to(dtype)
        return logits if self.offsets is None else logits + self.offsets.to(dtype)

    def reduced(
        self, logits: Float[Tensor, "n k"], tokens: Int[Tensor, " n"], factor: float = 1.0
    ) -> tuple[MovingLogits, Int[Tensor, " n"]]:
        """Returns the same of fewer columns, and where the tokens stand in them.

        The likeliest tokens, those that rise most and the tokens themselves are followed each; one column more stands
        for all others, which fall and rise as they do on average, by their probabilities. What that is wrong by is
        second order in a share of the probability that is small already: hundredths of a nat.

        Args:
            logits: What `at` gives without a step.
            tokens: A token for each row.
            factor: What the logits are multiplied by before they are probabilities.
        """
        size = logits.shape[1]
        if size <= 2 * _LIKELIEST:
            return self, tokens
        key = logits.clone()
        if self.share_at is not None:
            # Behind a norm, what FF2 speaks against comes up as its share falls.
            key = torch.maximum(key, self.at(self.typical.to(logits.device)))
        rising = self.responses.topk(_RISING, dim=1, largest=False).indices
        key.scatter_(1, rising, torch.inf).scatter_(1, tokens[:, None], torch.inf)
        columns = key.topk(_LIKELIEST, dim=1, sorted=False).indices
        others = (factor * logits).scatter(1, columns, -torch.inf)
        together = others.logsumexp(dim=1, keepdim=True)
        weights = (others - together).exp()

        def with_others(values: Tensor) -> Tensor:
            return torch.cat([values.gather(1, columns), (weights * values).sum(dim=1, keepdim=True)], dim=1)

        fixed = None if self.fixed is None else with_others(self.fixed)
        offsets = torch.zeros_like(logits) if self.offsets is None else self.offsets.to(logits).expand_as(logits)
        fewer = replace(
            self,
            moving=with_others(self.moving),
            responses=with_others(self.responses),
            fixed=fixed,
            offsets=with_others(offsets),
        )
        # What all others are together, not what they are on average.
        missing = together / factor - fewer.at(torch.zeros(len(logits), device=logits.device))[:, -1:]
        assert fewer.offsets is not None
        fewer.offsets[:, -1:] += missing
        return fewer, (columns == tokens[:, None]).int().argmax(dim=1)
