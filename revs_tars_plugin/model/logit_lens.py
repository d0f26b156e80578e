"""The logit lens: hidden space <-> logits, ranks, and the step that demotes a token; see `DemotionDirections`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import InputError
from .after_ff2 import Branches
from .after_head import AfterHead
from .demotion_directions import DemotionDirections
from .final_norm import NormGeometry, probe_norm
from .moving_logits import MovingLogits
from .offloaded import weight_of
from .rank_steps import (
    ranks,
    smallest_steps,
    smallest_steps_by_bisection,
    smallest_steps_by_secants,
    square_along,
    typical_step,
)
from .tensors import all_finite, row_slices

# Vectors whose logits are held at once.
_ROWS = 64
# How much further than the smallest step, relatively: there the target ties with its neighbour in the ranking, and the
# last bit of float32, which differs between batches, would decide.
_OVERSHOOT = 2.0**-16
# Behind a norm steps are looked for from this share of a typical one on, so many times twice as far.
_FIRST_LOOK, _LOOKS = 1 / 64, 14


@dataclass(frozen=True)
class Demotions:
    """How to push tokens down, one row a token.

    Attributes:
        tokens: Their ids, shape (n,).
        directions: `q`, what one unit of step takes off a vector of the residual space, shape (n, d), float32.
        responses: `h`, what one unit of step takes off every logit (before the norm divides), shape (n, V), float32.
    """

    tokens: Int[Tensor, " n"]
    directions: Float[Tensor, "n d"]
    responses: Float[Tensor, "n vocabulary"]

    def at(self, rows: Sequence[int]) -> Demotions:
        """Returns some of the rows; one row may be asked for many times."""
        if list(rows) == list(range(len(self.tokens))):
            return self
        index = torch.tensor(list(rows), device=self.tokens.device)
        return Demotions(self.tokens[index], self.directions[index], self.responses[index])


class LogitLens:
    """The logit lens of one model: final norm and head, seen from the residual space."""

    def __init__(
        self, head: nn.Module, head_name: str, norm: nn.Module, norm_name: str, after_head: AfterHead | None = None
    ) -> None:
        """Reads the norm's gain and the head; the Gram factor is made when first needed and lives with this object.

        Args:
            head: A module with a V x d weight.
            head_name: Its name, for messages.
            norm: The final norm.
            norm_name: Its name, for messages.
            after_head: What the model does with the head's logits; nothing by default.

        Raises:
            InputError: When head or norm are of a kind the exact step does not cover, or hold NaN or Inf.
        """
        weight = weight_of(head)
        if not isinstance(weight, Tensor) or weight.dim() != 2:
            raise InputError(f'lm_head_module "{head_name}" is a {type(head).__name__} without a V x d weight matrix.')
        if not all_finite(weight):
            raise InputError(f'The head "{head_name}" holds NaN or Inf; load the model again before editing it.')
        self.norm: NormGeometry = probe_norm(norm, norm_name)
        if self.norm.gain.numel() != weight.shape[1]:
            raise InputError(
                f'lm_head_module "{head_name}" reads vectors of {weight.shape[1]}, but the final norm "{norm_name}" '
                f"gives {self.norm.gain.numel()}; check both names."
            )
        self._after_head = after_head or AfterHead()
        self._weight = weight.detach()
        self._offsets = self._fixed_logits(weight_of(head, "bias"))
        self.directions = DemotionDirections(self._weight, self.norm)

    @property
    def size(self) -> int:
        """V, the number of rows of the head."""
        return self._weight.shape[0]

    @property
    def width(self) -> int:
        """d, the width of the residual space."""
        return self._weight.shape[1]

    def logits(self, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n vocabulary"]:
        """Reads vectors of the residual space through final norm and head, float32.

        Where the norm only divides by a positive number (RMSNorm, no bias) that number is left out, which changes no
        rank. Otherwise these are the full logits.
        """
        numerators = self._numerators(hidden)
        if self._offsets is None:
            return numerators
        return numerators / self.scale(hidden.to(numerators.device))[:, None] + self._offsets

    def full_logits(self, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n vocabulary"]:
        """The same as the model itself would say it, for probabilities: divided by the norm, scaled and capped."""
        logits = self.logits(hidden)
        divided = logits if self.has_offsets else logits / self.scale(hidden.to(logits.device))[:, None]
        return self._after_head.of(divided)

    def ranks(self, hidden: Float[Tensor, "n d"], tokens: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Returns each target's logit-lens rank in its own vector; 0 is the most likely token."""
        parts = []
        for rows, row_tokens in zip(torch.split(hidden, _ROWS), torch.split(tokens, _ROWS), strict=True):
            logits = self.logits(rows)
            parts.append(ranks(logits, row_tokens.to(logits.device)))
        return torch.cat(parts)

    def demotions(
        self,
        tokens: Int[Tensor, " n"],
        alternatives: Sequence[Sequence[int]] = (),
        *,
        ridge: float = 0.0,
        gain: Float[Tensor, " d"] | None = None,
    ) -> Demotions:
        """Returns how tokens are pushed down: `DemotionDirections.of`, and what comes of them; see there."""
        directions = self.directions.of(tokens, alternatives, ridge=ridge, gain=gain)
        return self.along(tokens, directions)

    def along(self, tokens: Int[Tensor, " n"], directions: Float[Tensor, "n d"]) -> Demotions:
        """Returns how tokens are pushed down along directions that are known."""
        tokens, directions = (values.to(self._weight.device) for values in (tokens, directions))
        return Demotions(tokens=tokens, directions=directions, responses=self._numerators(directions))

    def steps_to_rank(
        self,
        hidden: Float[Tensor, "n d"],
        demotions: Demotions,
        rank: int,
        logits: Float[Tensor, "n vocabulary"] | None = None,
        branches: Branches | None = None,
    ) -> Float[Tensor, " n"]:
        """Returns for each row the smallest step along its demotion direction that gives its token the rank for sure.

        Args:
            hidden: The vectors.
            demotions: One row for each vector.
            rank: The asked rank.
            logits: What `logits(hidden)` gave, if known already.
            branches: The vectors in two parts, where a norm stands behind FF2. The step is one of its output then, and
                the smallest up to how densely it is looked for.

        Returns:
            Steps in float64; infinity where no step reaches the rank.
        """
        if len(hidden) > _ROWS:
            parts = []
            for rows in torch.split(torch.arange(len(hidden)), _ROWS):
                part = None if logits is None else logits[rows.to(logits.device)]
                chosen, behind = demotions.at(rows.tolist()), None if branches is None else branches.at(rows)
                parts.append(self.steps_to_rank(hidden[rows.to(hidden.device)], chosen, rank, part, behind))
            return torch.cat(parts)
        if branches is None and self._offsets is None:
            logits = self.logits(hidden) if logits is None else logits
            steps = smallest_steps(logits, demotions.responses, demotions.tokens, rank)
        elif branches is None:
            # A norm that shifts as well as divides: the rank depends on how long the vector is.
            hidden = hidden.to(demotions.directions.device)
            moving = self._moving(hidden, demotions, self._numerators(hidden).double())
            steps = smallest_steps_by_bisection(
                lambda steps: ranks(moving.at(steps), demotions.tokens), moving.typical, rank
            )
        else:
            # No step moves the layer's output further than the norm behind FF2 lets through.
            moving = self._behind_norm(branches, demotions, torch.float64)
            steps = smallest_steps_by_bisection(
                lambda steps: ranks(moving.at(steps), demotions.tokens),
                moving.typical * _FIRST_LOOK,
                rank,
                doublings=_LOOKS,
            )
        return steps * (1 + _OVERSHOOT)

    def steps_to_log_probability(
        self,
        hidden: Float[Tensor, "n d"],
        demotions: Demotions,
        asked: Float[Tensor, " n"],
        branches: Branches | None = None,
    ) -> Float[Tensor, " n"]:
        """Returns for each row a step along its demotion direction that makes its token no likelier than asked.

        It is the smallest one where the token only grows less likely on the way.

        Args:
            hidden: The vectors.
            demotions: One row for each vector.
            asked: Log-probabilities, nats.
            branches: As in `steps_to_rank`.

        Returns:
            Steps in float64; infinity where no step gets there.
        """
        steps = torch.zeros(len(hidden), dtype=torch.float64)
        for rows in torch.split(torch.arange(len(hidden)), _ROWS):
            chosen = demotions.at(rows.tolist())
            vectors = hidden[rows.to(hidden.device)].to(chosen.directions.device)
            wanted = -asked[rows].to(chosen.directions)
            numerators = self._numerators(vectors)
            logits = numerators / self.scale(vectors)[:, None]
            logits = logits if self._offsets is None else logits + self._offsets
            now = _unlikeliness(self._after_head.of(logits), chosen.tokens)
            short = (now < wanted).nonzero().flatten()
            if len(short):
                chosen = chosen.at(short.tolist())
                # Thousandths of a nat matter to nobody, so single precision will do.
                if branches is None:
                    moving = self._moving(vectors[short], chosen, numerators[short])
                else:
                    moving = self._behind_norm(branches.at(rows[short.cpu()]), chosen, torch.float32)
                tokens = chosen.tokens
                if self._after_head.cap is None:
                    moving, tokens = moving.reduced(logits[short], tokens, self._after_head.factor)

                def unlikeliness_at(steps: Tensor, moving: MovingLogits = moving, tokens: Tensor = tokens) -> Tensor:
                    return _unlikeliness(self._after_head.of(moving.at(steps)), tokens)

                found = smallest_steps_by_secants(unlikeliness_at, moving.typical / 64, wanted[short])
                steps[rows[short.cpu()]] = found.cpu()
        return steps

    def _moving(self, hidden: Tensor, demotions: Demotions, numerators: Tensor) -> MovingLogits:
        """The full logits along the directions, as precise as the vectors' numerators."""
        vectors, directions = self.norm.centred(hidden.double()), self.norm.centred(demotions.directions.double())
        own, mixed, other = (
            (a * b).mean(dim=-1) for a, b in ((vectors, vectors), (vectors, directions), (directions, directions))
        )

        def scale_at(steps: Tensor) -> Tensor:
            return self._root(square_along(own, mixed, other, steps))

        typical = typical_step(own, other)
        responses = demotions.responses.to(numerators.dtype)
        return MovingLogits(numerators, responses, scale_at, typical, offsets=self._offsets)

    def _behind_norm(self, branches: Branches, demotions: Demotions, dtype: torch.dtype) -> MovingLogits:
        """The full logits where it is FF2's output, behind a norm, that takes the steps."""
        parts = [self.norm.centred(part.double()) for part in (branches.fixed, branches.moving, demotions.directions)]
        products = {(i, j): (parts[i] * parts[j]).mean(dim=-1) for i in range(3) for j in range(i, 3)}

        def share_at(steps: Tensor) -> Tensor:
            return 1 / branches.scale_at(steps)

        def scale_at(steps: Tensor) -> Tensor:
            share = share_at(steps)
            moved = square_along(products[1, 1], products[1, 2], products[2, 2], steps)
            crossed = products[0, 1] - steps * products[0, 2]
            return self._root(products[0, 0] + 2 * share * crossed + share**2 * moved)

        return MovingLogits(
            self._numerators(branches.moving).to(dtype),
            demotions.responses.to(dtype),
            scale_at,
            branches.typical.to(demotions.tokens.device),
            fixed=self._numerators(branches.fixed).to(dtype),
            share_at=share_at,
            offsets=self._offsets,
        )

    def _root(self, mean_square: Tensor) -> Tensor:
        return (mean_square.clamp_min(0.0) + self.norm.epsilon).sqrt()

    @property
    def has_offsets(self) -> bool:
        """Whether something is added to the logits whatever the vector, so that its length matters to ranks."""
        return self._offsets is not None

    def scale(self, hidden: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Returns what the norm divides each vector by."""
        return (self.norm.centred(hidden.float()).square().mean(dim=-1) + self.norm.epsilon).sqrt()

    def _numerators(self, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n vocabulary"]:
        scaled = self.norm.centred(hidden.to(self._weight.device, torch.float32)) * self.norm.gain.to(
            self._weight.device
        )
        return torch.cat([scaled @ part.float().T for part in row_slices(self._weight)], dim=-1)

    def _fixed_logits(self, head_bias: Tensor | None) -> Float[Tensor, " vocabulary"] | None:
        """What every vector gets whatever its direction: the norm's bias through the head, and the head's own."""
        bias = self.norm.bias.to(self._weight.device)
        if not bool(bias.any()) and (head_bias is None or not bool(head_bias.any())):
            return None
        fixed = torch.cat([part.float() @ bias for part in row_slices(self._weight)])
        return fixed if head_bias is None else fixed + head_bias.detach().float().to(fixed.device)


def _unlikeliness(logits: Float[Tensor, "n vocabulary"], tokens: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Returns the negative log-probability of each row's token, nats."""
    return logits.logsumexp(dim=-1) - logits.gather(1, tokens[:, None].to(logits.device))[:, 0]
