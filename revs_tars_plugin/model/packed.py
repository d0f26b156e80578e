"""Packed weights: 4 and 8 bits of bitsandbytes, torchao and others, edited without being unpacked.

No step fits between two levels of four bits, so a packed weight stays as it is, and an edit comes on top of what its
module computes, `packed(x) + x (W' - W)`. That is what a LoRA adapter beside it does, and every rank is measured so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import InputError
from .adapters import adapts_parameter, base_model
from .matrices import FeedForwardMatrix
from .tensors import is_plain

# Rows of the identity that a module is given at once.
_ROWS = 512
# How far a module may be from the product with its own weight: kernels of 4 and 8 bits round what they are given.
_TOLERANCE = 0.05


def is_packed(module: nn.Module) -> bool:
    """Says whether a module is a linear map whose weight is no plain tensor of floating-point numbers."""
    weight = getattr(module, "weight", None)
    plain = isinstance(weight, Tensor) and (weight.is_meta or is_plain(weight))
    return not plain and not adapts_parameter(module) and isinstance(getattr(module, "in_features", None), int)


@dataclass(frozen=True)
class PackedMatrix(FeedForwardMatrix):
    """FF2 with a packed weight: what it is given and gives can be read, and nothing be written."""

    @property
    def parameter(self) -> Tensor:
        """Nothing.

        Raises:
            InputError: Always.
        """
        raise InputError(
            f'The weight "{self.weight_name}" is packed: REVS and TARS edit such a model, this method does not; '
            "give it the model unpacked."
        )

    @property
    def width(self) -> int:
        """f, the number of neurons."""
        return int(self.module.in_features)  # type: ignore[arg-type]

    @property
    def residual_width(self) -> int:
        """d, the width of the residual space."""
        return int(self.module.out_features)  # type: ignore[arg-type]


class SpreadLinear(nn.Module):
    """A packed linear map with its weight spread out beside it; what is written there comes on top of what it computes.

    Attributes:
        packed: The packed module.
        weight: Its weight, outputs x inputs, float32, to be edited.
    """

    def __init__(self, packed: nn.Module, weight: Float[Tensor, "outputs inputs"]) -> None:
        """Keeps the weight twice: as it is, and to be edited."""
        super().__init__()
        self.packed = packed
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_buffer("_unedited", weight.clone(), persistent=False)
        self._change: tuple[int, Tensor | None] = (-1, None)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns what the packed module gives, and what the edit adds."""
        output: Tensor = self.packed(inputs)
        version = self.weight._version
        if self._change[0] != version:
            unedited = self.get_buffer("_unedited")
            same = torch.equal(self.weight, unedited)
            self._change = (version, None if same else self.weight.detach() - unedited)
        change = self._change[1]
        return output if change is None else output + nn.functional.linear(inputs.float(), change).to(output)


@torch.no_grad()
def spread_out(module: nn.Module, name: str, dtype: torch.dtype) -> Float[Tensor, "outputs inputs"]:
    """Returns what a packed module multiplies with, float32: what it makes of the identity, but for its bias.

    Args:
        module: The module.
        name: Its name, for messages.
        dtype: What the model computes in.

    Raises:
        InputError: When the module is no linear map.
    """
    place = next((each.device for each in (*module.parameters(), *module.buffers())), torch.device("cpu"))
    width = int(module.in_features)  # type: ignore[arg-type]
    weight = torch.empty(int(module.out_features), width, device=place)  # type: ignore[arg-type]
    for numbers in torch.split(torch.arange(width, device=place), _ROWS):
        rows = nn.functional.one_hot(numbers, width).to(dtype)
        try:
            bias = module(torch.zeros_like(rows[None, :1]))[0].float()
            weight[:, numbers] = (module(rows[None])[0].float() - bias).T
        except (RuntimeError, TypeError) as error:
            raise InputError(
                f'The packed module "{name}" cannot be run by itself ({" ".join(str(error).split())[:100]}); give the '
                "model as its library loads it, or unpacked."
            ) from error
    some = torch.randn(1, 8, width, generator=torch.Generator().manual_seed(0)).to(place, dtype)
    found, expected = module(some).float() - bias, some.float() @ weight.T
    if float((found - expected).norm()) > _TOLERANCE * float(expected.norm()):
        raise InputError(f'The packed module "{name}" is no product with a weight, so it cannot be edited exactly.')
    return weight


@contextmanager
def unpacked(model: nn.Module, templates: Sequence[str], layers: Sequence[int]) -> Iterator[bool]:
    """Spreads the packed weights among some out while the block lasts; yields whether there are any.

    Args:
        model: A causal language model; its packed modules are back in their places afterwards, untouched.
        templates: Names of modules, with `{}` for the layer.
        layers: The layers; all where there are none.

    Raises:
        InputError: When a packed module is no linear map.
    """
    if not layers:
        layers = range(sum(_is_layer(name, templates[0]) for name, _ in base_model(model).named_modules()))
    names = [template.format(layer) for template in templates for layer in layers]
    replaced = spread(model, names)
    try:
        # Those that an earlier edit spread out are packed ones as well.
        modules = dict(base_model(model).named_modules())
        yield any(isinstance(modules.get(name), SpreadLinear) for name in names)
    finally:
        put(model, replaced)


def put(model: nn.Module, replaced: Mapping[str, nn.Module]) -> None:
    """Puts modules in the places that their names say."""
    for name, module in replaced.items():
        parent, _, last = name.rpartition(".")
        setattr(base_model(model).get_submodule(parent), last, module)


def any_packed(model: nn.Module, template: str) -> bool:
    """Says whether a module of any layer is packed, or spread out; its name is given with `{}` for the layer."""
    modules = dict(base_model(model).named_modules())
    named = [module for name, module in modules.items() if _is_layer(name, template)]
    return any(is_packed(module) or isinstance(module, SpreadLinear) for module in named)


def spread(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    """Puts a `SpreadLinear` in the place of every packed module among some; names of others, or of none, are left.

    An edit that was made for packed weights can be applied then, undone and measured; such a model is not for saving.

    Args:
        model: A causal language model.
        names: Names of modules.

    Returns:
        What stood there, by name; see `put`.

    Raises:
        InputError: When a packed module is no linear map; none is replaced then.
    """
    inside = base_model(model)
    modules = dict(inside.named_modules())
    dtype = computing_dtype(inside)
    packed = {name: modules[name] for name in names if name in modules and is_packed(modules[name])}
    wrapped = {name: SpreadLinear(module, spread_out(module, name, dtype)) for name, module in packed.items()}
    put(inside, wrapped)
    return packed


def computing_dtype(model: nn.Module) -> torch.dtype:
    """Returns what a model computes in, whatever its packed weights are."""
    parameters = base_model(model).parameters()
    return next((each.dtype for each in parameters if each.is_floating_point() and is_plain(each)), torch.float32)


def _is_layer(name: str, template: str) -> bool:
    before, _, after = template.partition("{}")
    number = name.removeprefix(before).removesuffix(after)
    return name == template.format(number) and number.isdigit()
