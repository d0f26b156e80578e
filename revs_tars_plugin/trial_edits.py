"""Working on weights in place without leaving a trace: methods edit step by step, each step seeing the ones before."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from .edits import EditSet
from .spilled import SpilledTensor
from .weight_edits import LowRankEdit, NeuronEdit, WeightEdit, add_product, fingerprint, write_neurons


class TrialEdits:
    """Edits weights in place while a `with` block lasts, and puts every bit back when it ends, however it ends.

    A weight is changed in one of two ways for the whole trial, neuron by neuron or by low-rank products.
    """

    def __init__(self) -> None:
        """Starts with nothing changed."""
        self._changed: dict[str, _ChangedNeurons | _ChangedMatrix] = {}

    def __enter__(self) -> TrialEdits:
        """Starts the trial."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Puts all weights back; a Ctrl-C that arrives meanwhile waits until that is done."""
        interrupted: KeyboardInterrupt | None = None
        while True:
            try:
                for changed in self._changed.values():
                    changed.restore()
                break
            except KeyboardInterrupt as interrupt:  # writing the same bits again is harmless
                interrupted = interrupt
        if interrupted is not None:
            raise interrupted

    @torch.no_grad()
    def write_neurons(
        self,
        name: str,
        weight: Tensor,
        neuron_dim: int,
        indices: Tensor,
        values: Tensor,
        transposed: bool = False,
    ) -> None:
        """Writes neurons into a weight, remembering what stood there the first time each was touched.

        Args:
            name: The parameter's name in the model.
            weight: The parameter.
            neuron_dim: Its dimension that counts neurons.
            indices: Which neurons, shape (k,).
            values: Their new values, shape (k, d), the weight's dtype.
            transposed: Whether the weight stands as inputs x outputs.
        """
        changed = self._changed.setdefault(name, _ChangedNeurons(weight, neuron_dim, transposed))
        assert isinstance(changed, _ChangedNeurons)
        fresh = indices[~torch.isin(indices, changed.touched())]
        if len(fresh):
            before = weight.detach().movedim(neuron_dim, 0)[fresh].clone()
            changed.before.append((fresh, before))
        write_neurons(weight, neuron_dim, indices, values)

    @torch.no_grad()
    def add_low_rank(
        self, name: str, weight: Tensor, neuron_dim: int, keys: Tensor, values: Tensor, transposed: bool = False
    ) -> None:
        """Adds the product of two thin matrices to a weight; see `LowRankEdit` for the arguments.

        The sum is made anew from the weight as it was, so that it is the one the collected edit will write.
        """
        if name not in self._changed:
            self._changed[name] = _ChangedMatrix(weight, neuron_dim, transposed, SpilledTensor(weight))
        changed = self._changed[name]
        assert isinstance(changed, _ChangedMatrix)
        changed.keys.append(keys.float().cpu())
        changed.values.append(values.float().cpu())
        weight.copy_(changed.before.load())
        add_product(weight, neuron_dim, *changed.factors())

    def collect(self, method: str, outcomes: tuple[Any, ...]) -> EditSet:
        """Returns the net change so far as an `EditSet`; what is back at its old bits is left out."""
        edits = (changed.edit(name) for name, changed in self._changed.items())
        return EditSet(method=method, edits=tuple(edit for edit in edits if edit is not None), outcomes=outcomes)


@dataclass
class _ChangedNeurons:
    weight: Tensor
    neuron_dim: int
    transposed: bool
    before: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def touched(self) -> Tensor:
        empty = torch.empty(0, dtype=torch.long, device=self.weight.device)
        return torch.cat([empty, *(indices for indices, _ in self.before)])

    def restore(self) -> None:
        for indices, before in self.before:
            write_neurons(self.weight, self.neuron_dim, indices, before)

    def edit(self, name: str) -> WeightEdit | None:
        indices = self.touched()
        before = torch.cat([values for _, values in self.before])
        after = self.weight.detach().movedim(self.neuron_dim, 0)[indices]
        order = indices.argsort()
        order = order[(before != after).any(dim=1)[order]]
        if not len(order):
            return None
        chosen, old, new = (values[order].cpu() for values in (indices, before, after))
        width = self.weight.shape[self.neuron_dim]
        return NeuronEdit(name, self.neuron_dim, chosen, old, new, width, self.transposed)


@dataclass
class _ChangedMatrix:
    weight: Tensor
    neuron_dim: int
    transposed: bool
    before: SpilledTensor
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def factors(self) -> tuple[Tensor, Tensor]:
        return torch.cat(self.keys, dim=1), torch.cat(self.values, dim=0)

    def restore(self) -> None:
        with torch.no_grad():
            self.weight.copy_(self.before.load())

    def edit(self, name: str) -> WeightEdit:
        print_ = fingerprint(self.before.load())
        return LowRankEdit(name, self.neuron_dim, *self.factors(), print_, self.transposed)
