"""Exact changes of one weight: some neurons of it, or a product of two thin matrices added to it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..model.matrices import FeedForwardMatrix
from ..model.tensors import fingerprint, same_bits
from .disk_tensor import DiskTensor
from .places import AppliedProduct, WeightPlace

# Neurons that are summed in float32 at once: bounds the extra memory.
_SLICE = 1024


@runtime_checkable
class WeightEdit(Protocol):
    """One weight before and after an edit."""

    @property
    def name(self) -> str:
        """The parameter's name in the model."""
        ...

    @property
    def transposed(self) -> bool:
        """Whether the weight stands as inputs x outputs, as `Conv1D` has it."""
        ...

    @property
    def n_changed(self) -> int:
        """How many numbers the edit changes at most."""
        ...

    def stands_in(self, place: WeightPlace, *, applied: bool) -> bool:
        """Says whether the weight holds, bit for bit, what it must before undoing (`applied`) or applying."""
        ...

    def prepare(self, place: WeightPlace, products: list[AppliedProduct]) -> None:
        """Keeps what stands in the weight now; adds to `products` what has to live for as long as it is kept."""
        ...

    def write(self, place: WeightPlace, *, applied: bool) -> None:
        """Writes the weight as it is after (`applied`) or before the edit; writing before mends what broke off."""
        ...

    def forget(self, place: WeightPlace) -> None:
        """Lets go of what was kept; the weight is as it was before the edit."""
        ...

    def original(self, place: WeightPlace, weight: Tensor) -> Tensor:
        """Returns a new tensor with the values before the edit, given the weight with the edit in place."""
        ...

    def onto(self, weight: Tensor) -> WeightEdit:
        """Returns the same change of another weight, and writes it there."""
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

    @classmethod
    def of(cls, matrix: FeedForwardMatrix, indices: Tensor, before: Tensor, after: Tensor) -> NeuronEdit:
        """Returns the change of some neurons of a matrix, from whatever device; see the attributes for the shapes."""
        return cls(
            matrix.weight_name,
            matrix.neuron_dim,
            indices.cpu(),
            before.cpu(),
            after.cpu(),
            width=matrix.width,
            transposed=matrix.transposed,
        )

    @property
    def n_changed(self) -> int:
        """How many numbers the edit changes at most."""
        return self.after.numel()

    def stands_in(self, place: WeightPlace, *, applied: bool) -> bool:
        """Compares the neurons, and no other part of the weight."""
        rows = place.weight.detach().movedim(self.neuron_dim, 0)
        expected = self.after if applied else self.before
        return (
            rows.dtype == expected.dtype
            and rows.shape == (self.width, *expected.shape[1:])
            and same_bits(rows[self.indices.to(rows.device)].cpu(), expected)
        )

    def prepare(self, place: WeightPlace, products: list[AppliedProduct]) -> None:
        """Keeps nothing: what stood there before is part of the edit."""

    def write(self, place: WeightPlace, *, applied: bool) -> None:
        """Writes the neurons after (`applied`) or before the edit."""
        write_neurons(place.weight, self.neuron_dim, self.indices, self.after if applied else self.before)

    def forget(self, place: WeightPlace) -> None:
        """Has nothing to let go of."""

    def original(self, place: WeightPlace, weight: Tensor) -> Tensor:
        """Puts the neurons before the edit into a clone of the weight."""
        weight = weight.detach().clone()
        write_neurons(weight, self.neuron_dim, self.indices, self.before)
        return weight

    def onto(self, weight: Tensor) -> NeuronEdit:
        """Adds what the neurons changed by to those of the other weight."""
        before = weight.movedim(self.neuron_dim, 0)[self.indices.to(weight.device)].cpu()
        after = (before.float() + (self.after.float() - self.before.float())).to(before.dtype)
        write_neurons(weight, self.neuron_dim, self.indices, after)
        return replace(self, before=before, after=after)


@dataclass(frozen=True, eq=False)
class LowRankEdit:
    """A product of two thin matrices that is added to one FF2 weight.

    Adding in floating point cannot be taken back exactly, so the weight as it was is kept while the applied edit lives;
    see `WeightPlace`. Every edit of the same content can take the product off again.

    Attributes:
        name: The parameter's name in the model.
        neuron_dim: The dimension of the weight that counts neurons (1 for `Linear`, 0 for `Conv1D`).
        keys: What each rank-one change listens to, in FF2's input space, float32, on the CPU, shape (f, r).
        values: What it writes to the residual space, shape (r, d).
        fingerprint: The fingerprint of the weight that the edit was computed for.
        transposed: Whether the weight stands as inputs x outputs, as `Conv1D` has it.
    """

    name: str
    neuron_dim: int
    keys: Tensor
    values: Tensor
    fingerprint: str
    transposed: bool = False

    @property
    def n_changed(self) -> int:
        """How many numbers the edit changes at most: all of the weight."""
        return len(self.keys) * self.values.shape[1]

    @cached_property
    def digest(self) -> str:
        """What edits of the same content have in common, and no others."""
        parts = (self.name, str(self.neuron_dim), self.fingerprint, fingerprint(self.keys), fingerprint(self.values))
        return hashlib.blake2b(" ".join(parts).encode(), digest_size=16).hexdigest()

    def stands_in(self, place: WeightPlace, *, applied: bool) -> bool:
        """Compares the whole weight by its fingerprint."""
        if not applied:
            rows = place.weight.movedim(self.neuron_dim, 0)
            return (
                rows.shape == (len(self.keys), self.values.shape[1]) and fingerprint(place.weight) == self.fingerprint
            )
        product = place.applied_product(self.digest)
        return product is not None and fingerprint(place.weight) == product.fingerprint

    def prepare(self, place: WeightPlace, products: list[AppliedProduct]) -> None:
        """Keeps the weight as it is."""
        product = AppliedProduct(DiskTensor(place.weight))
        products.append(product)
        place.remember(self.digest, product)

    @torch.no_grad()
    def write(self, place: WeightPlace, *, applied: bool) -> None:
        """Puts the weight back as it was kept, and adds the product to it where it is to be `applied`."""
        product = place.applied_product(self.digest)
        if product is None:
            return
        weight = place.weight
        # When the product is first added the weight is what was just kept; large ones would be read back from the disk.
        if product.fingerprint or not applied:
            weight.copy_(product.before.load())
        if applied:
            add_product(weight, self.neuron_dim, self.keys, self.values)
            product.fingerprint = fingerprint(weight)

    def forget(self, place: WeightPlace) -> None:
        """Lets go of the weight as it was."""
        place.forget(self.digest)

    def original(self, place: WeightPlace, weight: Tensor) -> Tensor:
        """Returns the weight that was kept.

        Raises:
            KeyError: When the edit is not in place.
        """
        product = place.applied_product(self.digest)
        if product is None:
            raise KeyError(self.name)
        return product.before.load().to(weight.device)

    def onto(self, weight: Tensor) -> LowRankEdit:
        """Adds the product to the other weight."""
        changed = replace(self, fingerprint=fingerprint(weight))
        add_product(weight, self.neuron_dim, self.keys, self.values)
        return changed


@torch.no_grad()
def add_product(weight: Tensor, neuron_dim: int, keys: Tensor, values: Tensor) -> None:
    """Adds keys @ values to a weight in place: summed in float32, cast once, neurons in slices.

    Args:
        weight: The weight, in whatever orientation.
        neuron_dim: Its dimension that counts neurons.
        keys: Shape (f, r).
        values: Shape (r, d).
    """
    rows = weight.detach().movedim(neuron_dim, 0)
    # A sum that is kept whole is one factor, and the identity the other: nothing is multiplied, or rounded, there.
    whole = keys if _is_identity(values) else values if _is_identity(keys) else None
    values = values.to(weight.device).float()
    for part, change in zip(
        torch.split(rows, _SLICE), torch.split(keys if whole is None else whole, _SLICE), strict=True
    ):
        change = change.to(weight.device).float()
        part.copy_((part.float() + (change @ values if whole is None else change)).to(weight.dtype))


def _is_identity(factor: Tensor) -> bool:
    rows, columns = factor.shape
    return rows == columns and torch.equal(factor, torch.eye(rows, dtype=factor.dtype, device=factor.device))


@torch.no_grad()
def write_neurons(weight: Tensor, neuron_dim: int, indices: Tensor, values: Tensor) -> None:
    """Writes neurons into a weight in place.

    Args:
        weight: The weight, in whatever orientation.
        neuron_dim: Its dimension that counts neurons.
        indices: Which neurons, shape (k,).
        values: Their values, shape (k, d).
    """
    rows = weight.detach().movedim(neuron_dim, 0)
    rows[indices.to(weight.device)] = values.to(weight.device)
