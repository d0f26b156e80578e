"""Working on weights in place without leaving a trace: methods edit step by step, each step seeing the ones before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from ..model.experts import FeedForward
from ..model.matrices import FeedForwardMatrix
from ..model.tensors import fingerprint
from .disk_tensor import DiskTensor
from .edit_set import EditSet
from .weight_edits import LowRankEdit, NeuronEdit, WeightEdit, add_product, write_neurons


@dataclass(frozen=True)
class TrialCall:
    """One call that edited a matrix.

    Attributes:
        matrix: The matrix's name.
        kind: "neurons" or "low rank".
        tensors: "first" (which neurons, or what is listened to) and "values", as the call had them.
    """

    matrix: str
    kind: str
    tensors: dict[str, Tensor]


class TrialEdits:
    """Edits weights in place while a `with` block lasts, and puts every bit back when it ends, however it ends.

    A weight is changed in one of two ways for the whole trial, neuron by neuron or by low-rank products.
    """

    def __init__(self) -> None:
        """Starts with nothing changed."""
        self._changed: dict[str, _ChangedNeurons | _ChangedMatrix] = {}
        self._recorded: list[TrialCall] | None = None

    @contextmanager
    def recorded(self) -> Iterator[list[TrialCall]]:
        """Yields a list of the calls that edit something while a block lasts; made again, they edit the same."""
        self._recorded = calls = list[TrialCall]()
        try:
            yield calls
        finally:
            self._recorded = None

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

    def start_over(self) -> None:
        """Puts all weights back and forgets what was edited so far."""
        for changed in self._changed.values():
            changed.restore()
        self._changed.clear()

    @torch.no_grad()
    def write_neurons(self, matrix: FeedForward, indices: Tensor, values: Tensor) -> None:
        """Writes neurons into a matrix, remembering what stood there the first time each was touched.

        Args:
            matrix: The matrix, or those of all experts.
            indices: Which neurons, shape (k,).
            values: Their new values, shape (k, d), the weight's dtype.
        """
        self._note(matrix, "neurons", indices, values)
        for part, places, own in matrix.split(indices):
            changed = self._changed.setdefault(part.weight_name, _ChangedNeurons(part))
            assert isinstance(changed, _ChangedNeurons)
            fresh = own[~torch.isin(own, changed.touched())]
            if len(fresh):
                changed.before.append((fresh, part.rows[fresh].clone()))
            write_neurons(part.weight, part.neuron_dim, own, values[places])

    @torch.no_grad()
    def add_low_rank(self, matrix: FeedForward, keys: Tensor, values: Tensor) -> None:
        """Adds the product of two thin matrices to a matrix.

        The sum is made anew from the weight as it was, so that it is the one the collected edit will write. Of several
        experts those are left alone to which no key listens.

        Args:
            matrix: The matrix, or those of all experts.
            keys: What each rank-one change listens to, shape (f, r).
            values: What it writes to the residual space, shape (r, d).
        """
        self._note(matrix, "low rank", keys, values)
        parts = matrix.matrices
        for part, own in zip(parts, torch.split(keys, [each.width for each in parts]), strict=True):
            listens = own.any(dim=0) if len(parts) > 1 else torch.ones(own.shape[1], dtype=torch.bool)
            if not bool(listens.any()):
                continue
            if part.weight_name not in self._changed:
                self._changed[part.weight_name] = _ChangedMatrix(part, DiskTensor(part.weight))
            changed = self._changed[part.weight_name]
            assert isinstance(changed, _ChangedMatrix)
            changed.add(own[:, listens].float(), values[listens].float())

    def _note(self, matrix: FeedForward, kind: str, first: Tensor, values: Tensor) -> None:
        if self._recorded is not None:
            self._recorded.append(TrialCall(matrix.name, kind, {"first": first, "values": values}))

    def collect(self, method: str, outcomes: tuple[Any, ...]) -> EditSet:
        """Returns the net change so far as an `EditSet`; what is back at its old bits is left out."""
        edits = (changed.edit() for changed in self._changed.values())
        return EditSet(method=method, edits=tuple(edit for edit in edits if edit is not None), outcomes=outcomes)


@dataclass
class _ChangedNeurons:
    matrix: FeedForwardMatrix
    before: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def touched(self) -> Tensor:
        empty = torch.empty(0, dtype=torch.long, device=self.matrix.weight.device)
        return torch.cat([empty, *(indices for indices, _ in self.before)])

    def restore(self) -> None:
        for indices, before in self.before:
            write_neurons(self.matrix.weight, self.matrix.neuron_dim, indices, before)

    def edit(self) -> WeightEdit | None:
        indices = self.touched()
        before = torch.cat([values for _, values in self.before])
        after = self.matrix.rows[indices]
        order = indices.argsort()
        order = order[(before != after).any(dim=1)[order]]
        if not len(order):
            return None
        return NeuronEdit.of(self.matrix, indices[order], before[order], after[order])


@dataclass
class _ChangedMatrix:
    matrix: FeedForwardMatrix
    before: DiskTensor
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    whole: Tensor | None = None

    def add(self, keys: Tensor, values: Tensor) -> None:
        """Adds a product; of more columns than the matrix has a rank no more is kept than their sum."""
        weight = self.matrix.weight
        # Where the weight is, whatever made the product: so a call that goes on where it stopped sums the same.
        keys, values = keys.to(weight.device), values.to(weight.device)
        if self.whole is None:
            self.keys.append(keys.cpu())
            self.values.append(values.cpu())
            if sum(map(len, self.values)) > min(len(keys), values.shape[1]):
                self.whole = _product(torch.cat(self.keys, dim=1).to(keys), torch.cat(self.values).to(values))
                self.keys, self.values = [], []
        else:
            self.whole = self.whole + _product(keys, values)
        self.restore()
        add_product(weight, self.matrix.neuron_dim, *self.factors())

    def factors(self) -> tuple[Tensor, Tensor]:
        """Two thin matrices whose product is the sum; of a sum that is kept whole one of them is the identity."""
        if self.whole is None:
            return torch.cat(self.keys, dim=1), torch.cat(self.values, dim=0)
        inputs, outputs = self.whole.shape
        return (self.whole, torch.eye(outputs)) if outputs <= inputs else (torch.eye(inputs), self.whole)

    def restore(self) -> None:
        with torch.no_grad():
            self.matrix.weight.copy_(self.before.load())

    def edit(self) -> WeightEdit:
        keys, values = self.factors()
        return LowRankEdit(
            self.matrix.weight_name,
            self.matrix.neuron_dim,
            keys,
            values,
            fingerprint(self.before.load()),
            transposed=self.matrix.transposed,
        )


def _product(keys: Tensor, values: Tensor) -> Tensor:
    """Returns a product on the CPU, float32 whatever the caller computes in."""
    with torch.autocast(keys.device.type, enabled=False):
        return (keys @ values).cpu()
