"""Along which direction of the residual space a token is demoted.

With the head `W` (V x d) and the gain `g` of the final RMSNorm, lowering one logit of a projected vector and projecting
it back with the pseudo-inverse moves the vector along one fixed direction, because
`pinv(W) (W z - c e_t) = z - c (W^T W)^-1 W[t]`. One Cholesky factor of the d x d Gram matrix serves every token.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import InputError
from .final_norm import NormGeometry, through_gain
from .tensors import row_slices


class DemotionDirections:
    """The directions of one head behind one final norm; factors are made when first needed and live with it."""

    def __init__(self, weight: Float[Tensor, "vocabulary d"], norm: NormGeometry) -> None:
        """Takes the head's weight and the norm."""
        self._weight, self.norm = weight, norm
        self._ridge_factors: dict[tuple[float, int], tuple[Tensor | None, Tensor]] = {}

    def of(
        self,
        tokens: Int[Tensor, " n"],
        alternatives: Sequence[Sequence[int]] = (),
        *,
        ridge: float = 0.0,
        gain: Float[Tensor, " d"] | None = None,
    ) -> Float[Tensor, "n d"]:
        """Solves for the directions that lower the logits of tokens (REVS, section 3: edit and project back), float32.

        With `A` from what is written to logits, `(A^T A + ridge)^-1 A^T e_t`: without a ridge it moves the one logit
        and as little else as possible, however long it is; the larger the ridge, the shorter.

        Args:
            tokens: Their ids.
            alternatives: For each token the ids of others, any of which may occur several times: their mean logit rises
                as much as the token's own falls, so that all of them together stay where they are. None of them where
                that is empty.
            ridge: As a share of the mean diagonal of `A^T A`.
            gain: What multiplies each coordinate of what is written on its way to the residual space; 1 by default.
        """
        tokens = tokens.to(self._weight.device)
        rows = self._weight[tokens].double()
        # Many tokens share their alternatives.
        means = {
            others: self._weight[torch.tensor(others, device=rows.device)].double().mean(dim=0)
            for others in {tuple(others) for others in alternatives}
            if others
        }
        for row, others in enumerate(alternatives):
            if others:
                rows[row] -= means[tuple(others)]
        if ridge:
            behind = torch.ones_like(rows[0]) if gain is None else gain.to(rows)
            seen = self.norm.centred(rows * self.norm.gain.to(rows)) * behind
            written = torch.cholesky_solve(seen.T, self._factor_with(ridge, gain)).T
            return (written * behind).float()
        projected = torch.cholesky_solve(rows.T, self._gram_factor).T
        # A coordinate that the norm switches off cannot reach any logit.
        return through_gain(projected, self.norm.gain).float()

    @torch.no_grad()
    def _gram(self) -> Float[Tensor, "d d"]:
        """`W^T W` in float64."""
        width = self._weight.shape[1]
        gram = torch.zeros(width, width, dtype=torch.float64, device=self._weight.device)
        for part in row_slices(self._weight):
            wide = part.double()
            gram.addmm_(wide.T, wide)
        return gram

    @cached_property
    def _gram_behind_norm(self) -> Float[Tensor, "d d"]:
        """The same of the head behind the final norm, but for what that divides by."""
        scale = self.norm.gain.to(self._weight.device, torch.float64)
        scaled = self._gram().mul_(scale[:, None]).mul_(scale)
        return self.norm.centred(self.norm.centred(scaled).T)

    def _factor_with(self, ridge: float, gain: Float[Tensor, " d"] | None) -> Float[Tensor, "d d"]:
        """The Cholesky factor of that behind another gain, with a ridge; kept for each gain, as `_gram_factor` is."""
        key = (ridge, id(gain))
        if key not in self._ridge_factors:
            raised = self._gram_behind_norm.clone()
            if gain is not None:
                wide = gain.to(raised)
                raised.mul_(wide[:, None]).mul_(wide)
            raised.diagonal().add_(ridge * raised.diagonal().mean())
            factor, failed = torch.linalg.cholesky_ex(raised)
            if failed:
                raise InputError(f"direction_ridge is {ridge}, too little for this head; raise it, or leave it at 0.")
            # With the gain, so that no other one gets its id.
            self._ridge_factors[key] = (gain, factor)
        return self._ridge_factors[key][1]

    @cached_property
    @torch.no_grad()
    def _gram_factor(self) -> Float[Tensor, "d d"]:
        """The Cholesky factor of `W^T W`.

        It is kept here, for one call of a method, and nowhere else: a head changes in ways that leave no mark on the
        module (through `.data`, or by another parameter in its place).
        """
        gram = self._gram()
        mean = gram.diagonal().mean()
        # A head with fewer independent rows than columns has no inverse; a ridge far below its scale stands in.
        for ridge in (0.0, 1e-12, 1e-10, 1e-8):
            raised = gram.clone()
            raised.diagonal().add_(ridge * mean)
            factor: Tensor
            factor, failed = torch.linalg.cholesky_ex(raised)
            if not failed:
                return factor
        raise InputError("The head's Gram matrix is singular; are its weights initialised?")
