"""Vocabulary: hidden space <-> logits, ranks, and the direction along which one token is demoted.

With the head `W` (V x d) and the gain `g` of the final RMSNorm, lowering one logit of a projected vector and projecting
it back with the pseudo-inverse moves the vector along one fixed direction, because
`pinv(W) (W z - c e_t) = z - c (W^T W)^-1 W[t]`. One Cholesky factor of the d x d Gram matrix serves every token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .errors import InputError
from .norms import NormGeometry, probe_norm
from .rank_steps import ranks, smallest_steps

# Rows of the head that are widened to float64 (or multiplied) at once: bounds the extra memory.
_SLICE = 16384
_CACHE_ATTRIBUTE = "_revs_tars_gram_factor"


@dataclass(frozen=True)
class Demotion:
    """How to push one token down.

    Attributes:
        token: Its id.
        direction: `q`, what one unit of step takes off a vector of the residual space, shape (d,), float32.
        response: `h`, what one unit of step takes off every logit, shape (V,), float32.
    """

    token: int
    direction: Float[Tensor, " d"]
    response: Float[Tensor, " vocabulary"]


class Vocabulary:
    """The logit lens of one model: final norm and head, seen from the residual space.

    Logits are relative: they lack the positive scale that RMSNorm divides by, which changes no rank.
    """

    def __init__(self, head: nn.Module, head_name: str, norm: nn.Module, norm_name: str) -> None:
        """Reads gain and head; the Gram factor is made when first needed and kept on the head module.

        Raises:
            InputError: When head or norm are of a kind the exact step does not cover, or hold NaN or Inf.
        """
        weight = getattr(head, "weight", None)
        if not isinstance(weight, Tensor) or weight.dim() != 2:
            raise InputError(f'lm_head_module "{head_name}" is a {type(head).__name__} without a V x d weight matrix.')
        if getattr(head, "bias", None) is not None:
            raise InputError(f'lm_head_module "{head_name}" has a bias, which the exact rank step does not cover yet.')
        if not bool(weight.isfinite().all()):
            raise InputError(f'The head "{head_name}" holds NaN or Inf; load the model again before editing it.')
        self.norm: NormGeometry = probe_norm(norm, norm_name)
        if not self.norm.keeps_ranks_under_scaling:
            raise InputError(
                f'ln_f_module "{norm_name}" is a LayerNorm; the exact rank step covers RMSNorm models (Llama, Mistral, '
                "Qwen, ...) so far."
            )
        if self.norm.gain.numel() != weight.shape[1]:
            raise InputError(
                f'lm_head_module "{head_name}" reads vectors of {weight.shape[1]}, but the final norm "{norm_name}" '
                f"gives {self.norm.gain.numel()}; check both names."
            )
        self._head = head
        self._weight = weight.detach()

    @property
    def size(self) -> int:
        """V, the number of rows of the head."""
        return self._weight.shape[0]

    @property
    def width(self) -> int:
        """d, the width of the residual space."""
        return self._weight.shape[1]

    def logits(self, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n vocabulary"]:
        """Reads vectors of the residual space through final norm and head, up to a positive scale, in float32."""
        scaled = hidden.to(self._weight.device, torch.float32) * self.norm.gain.to(self._weight.device)
        return torch.cat([scaled @ part.float().T for part in torch.split(self._weight, _SLICE)], dim=-1)

    def ranks(self, hidden: Float[Tensor, "n d"], token: int) -> Int[Tensor, " n"]:
        """Returns the target's logit-lens rank for each vector; 0 is the most likely token."""
        return ranks(self.logits(hidden), token)

    def demotion(self, token: int) -> Demotion:
        """Solves for the direction that lowers the logit of one token (REVS, section 3: edit and project back)."""
        row = self._weight[token].double()
        projected = torch.cholesky_solve(row[:, None], self._gram_factor())[:, 0]
        gain = self.norm.gain.to(projected.device).double()
        # A coordinate that the norm switches off cannot reach any logit, so there the inverse is zero.
        direction = torch.where(gain == 0, 0.0, projected / torch.where(gain == 0, 1.0, gain)).float()
        return Demotion(token=token, direction=direction, response=self.logits(direction[None])[0])

    def steps_to_rank(
        self, logits: Float[Tensor, "n vocabulary"], demotion: Demotion, rank: int
    ) -> Float[Tensor, " n"]:
        """Returns the smallest step along the demotion direction that gives each row the rank; see `smallest_steps`."""
        return smallest_steps(logits, demotion.response, demotion.token, rank)

    @torch.no_grad()
    def _gram_factor(self) -> Float[Tensor, "d d"]:
        """The Cholesky factor of `W^T W` in float64, kept on the head for as long as its weights stay the same."""
        key = (self._weight.data_ptr(), self._weight._version, self._weight.device)
        kept = getattr(self._head, _CACHE_ATTRIBUTE, None)
        if kept is not None and kept[0] == key:
            factor: Tensor = kept[1]
            return factor
        gram = torch.zeros(self.width, self.width, dtype=torch.float64, device=self._weight.device)
        for part in torch.split(self._weight, _SLICE):
            wide = part.double()
            gram.addmm_(wide.T, wide)
        mean = gram.diagonal().mean()
        # A head with fewer independent rows than columns has no inverse; a ridge far below its scale stands in.
        for ridge in (0.0, 1e-12, 1e-10, 1e-8):
            factor, failed = torch.linalg.cholesky_ex(gram + ridge * mean * torch.eye(self.width).to(gram))
            if not failed:
                setattr(self._head, _CACHE_ATTRIBUTE, (key, factor))
                return factor
        raise InputError("The head's Gram matrix is singular; are its weights initialised?")
