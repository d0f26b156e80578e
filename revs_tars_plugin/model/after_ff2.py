"""What a layer does with FF2's output before it adds it to the residual space: nothing, a factor, or an RMSNorm.

Llama adds the output `o` as it is, Granite times a factor, Gemma 2 and 3 and OLMo 2 behind a norm of gain `g`. In all
of them what is added is `bias + gain * o / scale(o)`, and a step `s` along `q / gain` in place of `q` turns it into
`bias + (gain * o - s q) / scale(o - s q / gain)`: the same straight line, over a number that is known for every step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import InputError
from .experts import FeedForward
from .final_norm import probe_norm, through_gain
from .forward import layer_output, with_layer_output
from .rank_steps import square_along, typical_step

_TOLERANCE = 0.05
# A factor so near to 1 is rounding.
_NO_FACTOR = 0.01
# A matrix whose output gets no further than that is not one that the model uses.
_NOTHING = 1e-3


@dataclass(frozen=True)
class Branches:
    """Vectors of which one part lies behind a norm, `fixed + moving / scale`, while FF2's output takes a step.

    Attributes:
        fixed: What the step leaves alone, shape (n, d).
        moving: What falls by `step * direction`, shape (n, d).
        squares: Mean square of FF2's output, its mean product with the step's direction before the norm, and that
            direction's mean square, shape (3, n), float64.
        epsilon: The norm's.
    """

    fixed: Float[Tensor, "n d"]
    moving: Float[Tensor, "n d"]
    squares: Float[Tensor, "3 n"]
    epsilon: float

    def scale_at(self, steps: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Returns what the norm divides by after steps, float64."""
        output, mixed, direction = self.squares
        return (square_along(output, mixed, direction, steps).clamp_min(0.0) + self.epsilon).sqrt()

    @property
    def typical(self) -> Float[Tensor, " n"]:
        """The step at which what is taken off is as long as what stood there."""
        return typical_step(self.squares[0], self.squares[2])

    def at(self, rows: Tensor) -> Branches:
        """Returns some of the rows."""
        rows = rows.to(self.fixed.device)
        return Branches(self.fixed[rows], self.moving[rows], self.squares[:, rows], self.epsilon)


def within_reach(steps: Float[Tensor, " n"], branches: Branches | None) -> Float[Tensor, " n"]:
    """Returns steps with something finite where no step gets there.

    That is no step at all, since a later layer may do it. But behind a norm no layer reaches further than that lets
    through, so there each does its part: a step at which half of what FF2 writes is the demotion.

    Args:
        steps: Steps in float64, infinity where none gets there.
        branches: The vectors in two parts, where a norm stands behind FF2.
    """
    instead = torch.zeros_like(steps) if branches is None else branches.typical.to(steps)
    return torch.where(steps.isinf(), instead, steps)


@dataclass(frozen=True)
class AfterFF2:
    """What one layer does with its FF2's output.

    Attributes:
        gain: What each coordinate is multiplied by, the factor included, shape (d,), float32; None where it is 1.
        bias: What the norm adds, the factor included, shape (d,), float32; None where there is none.
        epsilon: The norm's; None where no norm stands there.
    """

    gain: Float[Tensor, " d"] | None = None
    bias: Float[Tensor, " d"] | None = None
    epsilon: float | None = None

    def written(self, output: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Returns what the residual space gets of FF2's output, float32."""
        values = self.unscaled(output)
        if self.epsilon is not None:
            values = values / (output.float().square().mean(dim=-1, keepdim=True) + self.epsilon).sqrt()
        return values if self.bias is None else values + self.bias.to(values.device)

    def unscaled(self, vectors: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Returns FF2's vectors as the residual space sees them but for a positive number, float32."""
        return vectors.float() if self.gain is None else vectors.float() * self.gain.to(vectors.device)

    def before(self, directions: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Returns what FF2 has to write to move the residual space along directions, but for what the norm divides by.

        A coordinate that the norm switches off cannot be written to.
        """
        return directions if self.gain is None else through_gain(directions, self.gain)

    def change(self, output: Float[Tensor, "*batch d"], change: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Returns what a change of FF2's output changes in the residual space."""
        if self.epsilon is None:
            return self.unscaled(change)
        return self.written(output.float() + change) - self.written(output)

    def branches(
        self, residual: Float[Tensor, "n d"], output: Float[Tensor, "n d"], directions: Float[Tensor, "n d"]
    ) -> Branches | None:
        """Returns vectors of the residual space as what FF2 adds and the rest; None where no norm makes a difference.

        Args:
            residual: What the layer gives.
            output: What FF2 gave there.
            directions: Along which the residual space is to move, one a row.
        """
        if self.epsilon is None:
            return None
        # The head, where the directions are, may be on another device than the layer.
        residual, output = (values.to(directions.device, torch.float32) for values in (residual, output))
        inner, written = self.before(directions).double(), self.written(output)
        wide = output.double()
        squares = torch.stack([(a * b).mean(dim=-1) for a, b in ((wide, wide), (wide, inner), (inner, inner))])
        moving = self.unscaled(output)
        plain = written - (0.0 if self.bias is None else self.bias.to(written.device))
        return Branches(residual - plain, moving, squares, self.epsilon)


@torch.no_grad()
def probe_after_ff2(
    model: nn.Module, ff2: Mapping[int, FeedForward], layers: Mapping[int, nn.Module], run: Callable[[], object]
) -> dict[int, AfterFF2]:
    """Finds what stands behind each FF2, and proves it: a known shift must come out of the layer as expected.

    Two passes tell. The norm is the module with one gain a coordinate that is given FF2's very output.

    Args:
        model: A causal language model.
        ff2: FF2 of each layer that is looked at.
        layers: These layers.
        run: Makes one pass of a few tokens through the model.

    Raises:
        InputError: Naming the layer and the module, where something else stands there.
    """
    plain: dict[int, Tensor] = {}
    norms: dict[int, nn.Module] = {}
    shifts: dict[int, Tensor] = {}
    answers: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: object, output: Any) -> None:
            plain[layer] = layer_output(output).clone()

        return hook

    def compare(layer: int) -> Callable[..., Any]:
        def hook(_module: nn.Module, _args: object, output: Any) -> Any:
            answers[layer] = (layer_output(output) - plain[layer])[0, -1].float()
            # The next layer is shown what it saw in the first pass.
            return with_layer_output(output, plain[layer])

        return hook

    with ExitStack() as hooks:
        for layer, module in layers.items():
            _note_norm(layer, ff2[layer], module, norms, hooks)
            hooks.callback(module.register_forward_hook(keep(layer)).remove)
        run()
    generator = torch.Generator().manual_seed(0)
    with ExitStack() as hooks:
        for layer, module in layers.items():
            state = plain[layer][0, -1]
            direction = torch.randn(len(state), generator=generator).to(state)
            # As long as the state itself, so that rounding in half precision does not matter.
            shifts[layer] = direction * (state.float().norm() / direction.float().norm()).to(direction)
            hooks.callback(_shift(norms.get(layer, ff2[layer].module), shifts[layer]).remove)
            hooks.callback(module.register_forward_hook(compare(layer)).remove)
        run()
    found = {}
    for layer in layers:
        factor = _factor(shifts[layer].float(), answers[layer])
        if factor is None:
            raise InputError(
                f'Layer {layer} does not add the output of "{ff2[layer].name}" to the residual space as it is, times a '
                f"factor or behind an RMSNorm, so this {type(model).__name__} cannot be edited exactly."
            )
        found[layer] = _after(model, ff2[layer], norms.get(layer), factor)
    return found


def _factor(shift: Float[Tensor, " d"], answer: Float[Tensor, " d"]) -> float | None:
    """By what a shift is multiplied on its way out of the layer; None where more than that happens to it."""
    shift = shift.to(answer.device)
    factor = float((answer @ shift) / shift.square().sum())
    straight = float((answer - factor * shift).norm()) <= _TOLERANCE * abs(factor) * float(shift.norm())
    if not straight or abs(factor) < _NOTHING:
        return None
    return 1.0 if abs(factor - 1) <= _NO_FACTOR else factor


def _after(model: nn.Module, ff2: FeedForward, norm: nn.Module | None, factor: float) -> AfterFF2:
    if norm is None:
        return AfterFF2() if factor == 1 else AfterFF2(torch.full((ff2.matrices[0].residual_width,), factor))
    name = next(name for name, module in model.named_modules() if module is norm)
    geometry = probe_norm(norm, name, what="The norm behind FF2")
    if geometry.centres:
        raise InputError(
            f'"{name}" behind "{ff2.name}" takes off the mean, so this {type(model).__name__} cannot be edited exactly.'
        )
    bias = factor * geometry.bias if bool(geometry.bias.any()) else None
    return AfterFF2(factor * geometry.gain, bias, geometry.epsilon)


def _note_norm(layer: int, ff2: FeedForward, module: nn.Module, norms: dict[int, nn.Module], hooks: ExitStack) -> None:
    """Notes which norm of a layer takes what FF2 gave: the same memory, not a copy."""
    width = ff2.matrices[0].residual_width
    given: list[Tensor] = []

    def keep(_module: nn.Module, _args: object, output: Any) -> None:
        given.append(layer_output(output))

    def look(module: nn.Module, args: tuple[Any, ...]) -> None:
        if given and args and isinstance(args[0], Tensor) and args[0].data_ptr() == given[-1].data_ptr():
            norms[layer] = module

    hooks.callback(ff2.module.register_forward_hook(keep).remove)
    for part in module.modules():
        parameters = list(part.parameters())
        if parameters and all(tuple(parameter.shape) == (width,) for parameter in parameters):
            hooks.callback(part.register_forward_pre_hook(look).remove)


def _shift(module: nn.Module, shift: Tensor) -> Any:
    def hook(_module: nn.Module, _args: object, output: Any) -> Any:
        return with_layer_output(output, layer_output(output) + shift.to(layer_output(output)))

    return module.register_forward_hook(hook)
