"""What a final norm does to a vector, measured on the module itself, so that no model family needs a branch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import InputError
from .offloaded import weights_of

# Length of the probe that shows epsilon; its square lies near the epsilons in use, 1e-5 to 1e-6.
_SMALL = 1e-3


@dataclass(frozen=True)
class NormGeometry:
    """A norm as `bias + gain * (x - centre(x)) / scale(x)`.

    Attributes:
        gain: What each normalised coordinate is multiplied by, shape (d,), float32. Includes a family's "1 + weight".
        bias: What is added afterwards, shape (d,), float32.
        centres: Whether the mean is taken off first (LayerNorm) or not (RMSNorm).
        epsilon: What is added to the mean square under the root.
    """

    gain: Float[Tensor, " d"]
    bias: Float[Tensor, " d"]
    centres: bool
    epsilon: float

    def centred(self, vectors: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Returns vectors without their means, where the norm takes these off first."""
        return vectors - vectors.mean(dim=-1, keepdim=True) if self.centres else vectors


def through_gain(directions: Float[Tensor, "*batch d"], gain: Float[Tensor, " d"]) -> Float[Tensor, "*batch d"]:
    """Returns what becomes these directions behind a gain; nothing where it switches a coordinate off.

    Args:
        directions: Directions behind it.
        gain: What each coordinate is multiplied by.
    """
    gain = gain.to(directions)
    return torch.where(gain == 0, 0.0, directions / torch.where(gain == 0, 1.0, gain))


@torch.no_grad()
def probe_norm(norm: nn.Module, name: str, *, what: str = "ln_f_module") -> NormGeometry:
    """Finds gain, bias and kind of a norm by feeding it four known vectors in float32.

    A vector of alternating +1 and -1 has mean 0 and root mean square 1, so both kinds of norm give back
    `bias + gain * vector` for it; a shifted copy tells whether the mean is removed, a short one what epsilon is.

    Args:
        norm: The norm module. Its weights are not touched.
        name: Its name, for messages.
        what: What it is there, for messages.

    Raises:
        InputError: When the module has no vector of weights, or behaves as neither kind.
    """
    parameters = {key: value.detach().float() for key, value in weights_of(norm).items()}
    widths = {tuple(value.shape) for value in parameters.values()}
    if len(widths) != 1 or len(next(iter(widths))) != 1:
        raise InputError(f'{what} "{name}" is a {type(norm).__name__}, which is no norm with one gain a coordinate.')
    first = next(iter(parameters.values()))
    if not bool(torch.stack([value.isfinite().all() for value in parameters.values()]).all()):
        raise InputError(f'The norm "{name}" holds NaN or Inf; load the model again before editing it.')
    width = first.numel()
    if width % 2:
        raise InputError(f'The norm "{name}" has the odd width {width}, which is not supported.')
    # Large against any epsilon of the norm, so that epsilon does not enter the gain.
    size = 1024.0
    signs = torch.ones(width, device=first.device)
    signs[1::2] = -1.0

    plain, given = _Plain(norm), {f"norm.{key}": value for key, value in parameters.items()}

    def output(vector: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(plain, given, (vector.expand(1, 1, width),))
        return result.float().flatten()

    plus, minus = output(size * signs), output(-size * signs)
    bias = (plus + minus) / 2
    bias = torch.where(bias.abs() < 1e-6 * plus.abs().max(), torch.zeros_like(bias), bias)
    gain = (plus - minus) / 2 * signs
    shift = output(size * (signs + 1))
    as_layer_norm = bias + gain * signs
    as_rms_norm = bias + gain * (signs + 1) / 2**0.5
    tolerance = 1e-3 * float(plus.abs().max())
    for centres, expected in ((True, as_layer_norm), (False, as_rms_norm)):
        if torch.allclose(shift, expected, atol=tolerance, rtol=1e-3):
            # A vector so short that epsilon shows: its output is gain * small / sqrt(small^2 + epsilon).
            shrunk = float((output(_SMALL * signs) - bias).abs().mean() / gain.abs().mean())
            return NormGeometry(gain, bias, centres, epsilon=max(0.0, _SMALL**2 * (shrunk**-2 - 1)))
    raise InputError(f'{what} "{name}" ({type(norm).__name__}) behaves neither as LayerNorm nor as RMSNorm.')


class _Plain(nn.Module):
    """A norm as its class computes it, whatever was put around its forward to bring its weights in."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, vector: Tensor) -> Tensor:
        offloaded = hasattr(self.norm, "_hf_hook")
        result: Tensor = type(self.norm).forward(self.norm, vector) if offloaded else self.norm(vector)
        return result
