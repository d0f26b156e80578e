"""Exact changes of one weight: some neurons of it, or a product of two thin matrices added to it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from .spilled import SpilledTensor

# Neurons that are summed in float32 at once: bounds the extra memory.
_SLICE = 1024


@runtime_checkable
class WeightEdit(Protocol):
    """One weight before and after an edit."""

    @property
    def name(self) -> str:
        """The parameter's name in the model."""

    @property
    def transposed(self) -> bool:
        """Whether the weight stands as inputs x outputs, as `Conv1D` has it."""
        ...

    @property
    def n_changed(self) -> int:
        """How many numbers the edit changes at most."""
        ...

    def stands_in(self, weight: Tensor, *, applied: bool) -> bool:
        """Says whether the weight holds, bit for bit, what it must before undoing (`applied`) or applying."""
        ...

    def write(self, weight: Tensor, *, applied: bool) -> None:
        """Writes the weight as it is after (`applied`) or before the edit."""
        ...

    def original(self, weight: Tensor) -> Tensor:
        """Returns a new tensor with the values before the edit, given the weight with the edit in place."""
        ...


@dataclass(frozen=True)
class NeuronEdit:
    """Some neurons of one FF2 weight, before and after.

    Attributes:
        name: The parameter's name in the model.
        neuron_dim: The dimension of the weight that counts neurons (1 for `Linear`, 0 for `Conv1D`).
        indices: Which neurons, shape (k,).
        before: Their values before the edit, the weight's dtype, on the CPU, shape (k, d).
        after: Their values after it.
        width: How many neurons the weight has.
        transposed: Whether the weight stands as inputs x outputs, as `Conv1D` has it.
    """

    name: str
    neuron_dim: int
    indices: Tensor
    before: Tensor
    after: Tensor
    width: int
    transposed: bool = False

    @property
    def n_changed(self) -> int:
        """How many numbers the edit changes at most."""
        return self.after.numel()

    def stands_in(self, weight: Tensor, *, applied: bool) -> bool:
        """Compares the neurons, and no other part of the weight."""
        rows = weight.detach().movedim(self.neuron_dim, 0)
        expected = self.after if applied else self.before
        return (
            rows.dtype == expected.dtype
            and rows.shape == (self.width, *expected.shape[1:])
            and _same_bits(rows[self.indices.to(rows.device)].cpu(), expected)
        )

    def write(self, weight: Tensor, *, applied: bool) -> None:
        """Writes the neurons after (`applied`) or before the edit into a weight."""
        write_neurons(weight, self.neuron_dim, self.indices, self.after if applied else self.before)

    def original(self, weight: Tensor) -> Tensor:
        """Puts the neurons before the edit into a clone of the weight."""
        weight = weight.detach().clone()
        self.write(weight, applied=False)
        return weight


@dataclass(frozen=True, eq=False)
class LowRankEdit:
    """A product of two thin matrices that is added to one FF2 weight.

    Adding in floating point cannot be taken back exactly, so the weight as it was is kept beside the model, on disk
    where it is large, for as long as the edit is in place.

    Attributes:
        name: The parameter's name in the model.
        neuron_dim: The dimension of the weight that counts neurons (1 for `Linear`, 0 for `Conv1D`).
        keys: What each rank-one change listens to, in FF2's input space, float32, on the CPU, shape (f, r).
        values: What it writes to the residual space, shape (r, d).
        fingerprint: Of the weight the edit was computed for.
        transposed: Whether the weight stands as inputs x outputs, as `Conv1D` has it.
    """

    name: str
    neuron_dim: int
    keys: Tensor
    values: Tensor
    fingerprint: str
    transposed: bool = False
    _kept: WeakTensorKeyDictionary = field(default_factory=WeakTensorKeyDictionary, repr=False)

    @property
    def n_changed(self) -> int:
        """How many numbers the edit changes at most: all of the weight."""
        return len(self.keys) * self.values.shape[1]

    def stands_in(self, weight: Tensor, *, applied: bool) -> bool:
        """Compares the whole weight by its fingerprint."""
        if not applied:
            return fingerprint(weight) == self.fingerprint
        return weight in self._kept and fingerprint(weight) == self._kept[weight][1]

    def write(self, weight: Tensor, *, applied: bool) -> None:
        """Adds the product, keeping the weight as it was, or puts that one back."""
        with torch.no_grad():
            if applied:
                before = SpilledTensor(weight)
                self._kept[weight] = (before, "")
                add_product(weight, self.neuron_dim, self.keys, self.values)
                self._kept[weight] = (before, fingerprint(weight))
            elif weight in self._kept:
                weight.copy_(self._kept[weight][0].load())
                del self._kept[weight]

    def original(self, weight: Tensor) -> Tensor:
        """Returns the weight that was kept."""
        before: SpilledTensor = self._kept[weight][0]
        return before.load().to(weight.device)


@torch.no_grad()
def add_product(weight: Tensor, neuron_dim: int, keys: Tensor, values: Tensor) -> None:
    """Adds keys @ values to a weight in place, in its orientation: summed in float32, cast once, neurons in slices."""
    rows = weight.detach().movedim(neuron_dim, 0)
    values = values.to(weight.device).float()
    for part, own in zip(torch.split(rows, _SLICE), torch.split(keys, _SLICE), strict=True):
        part.copy_((part.float() + own.to(weight.device).float() @ values).to(weight.dtype))


def fingerprint(weight: Tensor) -> str:
    """Returns a digest of a tensor's dtype, shape and bits."""
    digest = hashlib.blake2b(f"{weight.dtype}{tuple(weight.shape)}".encode(), digest_size=16)
    digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_neurons(weight: Tensor, neuron_dim: int, indices: Tensor, values: Tensor) -> None:
    """Writes neurons, one a row of `values`, into a weight in place."""
    with torch.no_grad():
        rows = weight.detach().movedim(neuron_dim, 0)
        rows[indices.to(weight.device)] = values.to(weight.device)


def _same_bits(first: Tensor, second: Tensor) -> bool:
    """Equality that tells 0.0 from -0.0 and takes a NaN as equal to itself."""
    return torch.equal(first.contiguous().view(torch.uint8), second.contiguous().view(torch.uint8))
