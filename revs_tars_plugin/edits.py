"""Edits as things: exact changes of named weights that can be applied and undone to the very bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from .errors import EditConflictError


@dataclass(frozen=True)
class NeuronEdit:
    """Some neurons of one FF2 weight, before and after.

    Attributes:
        name: The parameter's name in the model.
        neuron_dim: The dimension of the weight that counts neurons (1 for `Linear`, 0 for `Conv1D`).
        indices: Which neurons, shape (k,).
        before: Their values before the edit, the weight's dtype, on the CPU, shape (k, d).
        after: Their values after it.
    """

    name: str
    neuron_dim: int
    indices: Tensor
    before: Tensor
    after: Tensor

    def stands_in(self, weight: Tensor, *, applied: bool) -> bool:
        """Says whether the weight holds, bit for bit, what it must before undoing (`applied`) or applying."""
        rows = weight.detach().movedim(self.neuron_dim, 0)
        expected = self.after if applied else self.before
        return (
            rows.dtype == expected.dtype
            and rows.shape[1:] == expected.shape[1:]
            and int(self.indices.max()) < len(rows)
            and _same_bits(rows[self.indices.to(rows.device)].cpu(), expected)
        )

    @torch.no_grad()
    def write(self, weight: Tensor, *, applied: bool) -> None:
        """Writes the neurons after (`applied`) or before the edit into a weight."""
        _write_neurons(weight, self.neuron_dim, self.indices, self.after if applied else self.before)


@dataclass(frozen=True)
class EditSet:
    """All changes that one call of a method makes to a model, and what it found on the way.

    Attributes:
        method: The algorithm's name.
        edits: One entry per changed weight.
        outcomes: What happened to each target, as the method's own records.
    """

    method: str
    edits: tuple[NeuronEdit, ...]
    outcomes: tuple[Any, ...] = field(default=())

    def apply(self, model: nn.Module) -> None:
        """Writes the edit into the model's weights, all of it or nothing.

        Raises:
            EditConflictError: When a weight is not, bit for bit, the one the edit was computed for.
        """
        self._switch(model, applied=True)

    def undo(self, model: nn.Module) -> None:
        """Puts the very bits back that stood before the edit, all of them or nothing.

        Raises:
            EditConflictError: When the edit is not in place, or a later edit changed the same neurons.
        """
        self._switch(model, applied=False)

    @property
    def n_changed(self) -> int:
        """How many numbers the edit changes at most."""
        return sum(edit.after.numel() for edit in self.edits)

    def _switch(self, model: nn.Module, *, applied: bool) -> None:
        weights = [_parameter(model, edit.name) for edit in self.edits]
        for edit, weight in zip(self.edits, weights, strict=True):
            if not edit.stands_in(weight, applied=not applied):
                raise EditConflictError(_conflict(edit, weight, applied=applied))
        try:
            for edit, weight in zip(self.edits, weights, strict=True):
                edit.write(weight, applied=applied)
        except BaseException:
            for edit, weight in zip(self.edits, weights, strict=True):
                edit.write(weight, applied=not applied)
            raise


class OriginalWeights(Mapping[str, Tensor]):
    """What the host asks for as `weights_copy`: name -> original tensor, rebuilt one at a time when asked for.

    It holds no copy of a matrix: the neurons before the edit are put back into a clone of the weight as it stands. So
    it answers with the weights before *this* edit as long as later edits of the same neurons were undone first.

    Attributes:
        edits: The edit this belongs to.
    """

    def __init__(self, model: nn.Module, edits: EditSet, *, restores: bool = True) -> None:
        """Remembers model and edit; with `restores=False` the mapping is empty and the edit stays."""
        self.edits = edits
        self._model = model
        self._by_name = {edit.name: edit for edit in edits.edits} if restores else {}

    def kept(self) -> OriginalWeights:
        """Returns an empty mapping with the same `edits`, for a caller that must not restore anything."""
        return OriginalWeights(self._model, self.edits, restores=False)

    def __getitem__(self, name: str) -> Tensor:
        """Returns a new tensor with the weight as it was before the edit."""
        edit = self._by_name[name]
        weight = _parameter(self._model, name).detach().clone()
        edit.write(weight, applied=False)
        return weight

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names of the changed weights."""
        return iter(self._by_name)

    def __len__(self) -> int:
        """Returns the number of changed weights."""
        return len(self._by_name)


class TrialEdits:
    """Edits weights in place while a `with` block lasts, and puts every bit back when it ends, however it ends.

    Methods work in it layer by layer and secret by secret, so that each step sees the ones before it in place.
    """

    def __init__(self) -> None:
        """Starts with nothing changed."""
        self._changed: dict[str, _Changed] = {}

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
                    for indices, before in changed.before:
                        _write_neurons(changed.weight, changed.neuron_dim, indices, before)
                break
            except KeyboardInterrupt as interrupt:  # writing the same bits again is harmless
                interrupted = interrupt
        if interrupted is not None:
            raise interrupted

    @torch.no_grad()
    def write_neurons(self, name: str, weight: Tensor, neuron_dim: int, indices: Tensor, values: Tensor) -> None:
        """Writes neurons into a weight, remembering what stood there the first time each was touched.

        Args:
            name: The parameter's name in the model.
            weight: The parameter.
            neuron_dim: Its dimension that counts neurons.
            indices: Which neurons, shape (k,).
            values: Their new values, shape (k, d), the weight's dtype.
        """
        changed = self._changed.setdefault(name, _Changed(weight, neuron_dim))
        fresh = indices[~torch.isin(indices, changed.touched())]
        if len(fresh):
            before = weight.detach().movedim(neuron_dim, 0)[fresh].clone()
            changed.before.append((fresh, before))
        _write_neurons(weight, neuron_dim, indices, values)

    def collect(self, method: str, outcomes: tuple[Any, ...]) -> EditSet:
        """Returns the net change so far as an `EditSet`; neurons that are back at their old bits are left out."""
        edits = []
        for name, changed in self._changed.items():
            indices = changed.touched()
            before = torch.cat([values for _, values in changed.before])
            after = changed.weight.detach().movedim(changed.neuron_dim, 0)[indices]
            order = indices.argsort()
            order = order[(before != after).any(dim=1)[order]]
            if len(order):
                edits.append(
                    NeuronEdit(name, changed.neuron_dim, indices[order].cpu(), before[order].cpu(), after[order].cpu())
                )
        return EditSet(method=method, edits=tuple(edits), outcomes=outcomes)


@dataclass
class _Changed:
    weight: Tensor
    neuron_dim: int
    before: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def touched(self) -> Tensor:
        empty = torch.empty(0, dtype=torch.long, device=self.weight.device)
        return torch.cat([empty, *(indices for indices, _ in self.before)])


def _write_neurons(weight: Tensor, neuron_dim: int, indices: Tensor, values: Tensor) -> None:
    with torch.no_grad():
        rows = weight.detach().movedim(neuron_dim, 0)
        rows[indices.to(weight.device)] = values.to(weight.device)


def _same_bits(first: Tensor, second: Tensor) -> bool:
    """Equality that tells 0.0 from -0.0 and takes a NaN as equal to itself."""
    return torch.equal(first.contiguous().view(torch.uint8), second.contiguous().view(torch.uint8))


def _parameter(model: nn.Module, name: str) -> Tensor:
    try:
        return model.get_parameter(name)
    except AttributeError as error:
        raise EditConflictError(
            f'The edit changes "{name}", which this {type(model).__name__} does not have.'
        ) from error


def _conflict(edit: NeuronEdit, weight: Tensor, *, applied: bool) -> str:
    if edit.stands_in(weight, applied=applied):
        state = "already applied" if applied else "not applied"
        return f'The edit of "{edit.name}" is {state} on this model; nothing was changed.'
    way_out = (
        "apply it to the model it was computed for" if applied else "undo later edits first, the last one made first"
    )
    return f'The weight "{edit.name}" differs from the one this edit belongs to; {way_out}.'
