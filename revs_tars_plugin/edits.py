"""Edits as things: exact changes of a model that can be applied and undone to the very bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn, no_grad

from .adapters import base_model
from .errors import EditConflictError
from .weight_edits import WeightEdit, fingerprint


@dataclass(frozen=True)
class EditSet:
    """All changes that one call of a method makes to a model, and what it found on the way.

    Attributes:
        method: The algorithm's name.
        edits: One entry per changed weight; several where they change different neurons of it.
        outcomes: What happened to each target, as the method's own records.
        settings: The method's settings, plain values.
        requests: What was asked for. It holds the secrets, so it is neither printed nor, unless asked for, saved.
    """

    method: str
    edits: tuple[WeightEdit, ...]
    outcomes: tuple[Any, ...] = field(default=())
    settings: Mapping[str, Any] = field(default_factory=dict)
    requests: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    def apply(self, model: nn.Module) -> None:
        """Writes the edit into the model's weights, all of it or nothing.

        Raises:
            EditConflictError: When a weight is not, bit for bit, the one the edit was computed for.
        """
        self._switch(model, applied=True)

    def undo(self, model: nn.Module) -> None:
        """Puts the very bits back that stood before the edit, all of them or nothing.

        Raises:
            EditConflictError: When the edit is not in place, or a later edit changed the same weights.
        """
        self._switch(model, applied=False)

    def undo_by_base(self, model: nn.Module, base: nn.Module) -> None:
        """Takes the edit out of a model that was saved with it in place, all of it or nothing.

        A product that was added cannot be taken off to the bit; what stood there before is in the base.

        Args:
            model: The edited model, loaded in whatever process.
            base: The model before the edit; it is as before afterwards.

        Raises:
            EditConflictError: When the edit was not computed for the base, or does not stand in the model.
        """
        names = list(dict.fromkeys(edit.name for edit in self.edits))
        self.apply(base)
        try:
            for name in names:
                if fingerprint(_parameter(model, name)) != fingerprint(_parameter(base, name)):
                    raise EditConflictError(
                        f'The weight "{name}" is not the base\'s with this edit; undo later edits first, and load both '
                        "in the dtype they were saved in."
                    )
        finally:
            self.undo(base)
        with no_grad():
            for name in names:
                _parameter(model, name).copy_(_parameter(base, name))

    def of_call(self, requests: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> EditSet:
        """Returns the same edit with what it was computed from."""
        return replace(self, requests=tuple(dict(request) for request in requests), settings=dict(settings))

    def save(self, path: str | Path, *, include_requests: bool = False) -> None:
        """Writes the edit into one safetensors file; see `save_edits`."""
        from .edit_files import save_edits

        save_edits(self, path, include_requests=include_requests)

    @classmethod
    def load(cls, path: str | Path) -> EditSet:
        """Reads what `save` wrote; see `load_edits`."""
        from .edit_files import load_edits

        return load_edits(path)

    def to_peft(self, folder: str | Path, base_model: str = "") -> None:
        """Writes the edit as a LoRA adapter that plain `peft` loads; see `export_peft`."""
        from .peft_export import export_peft

        export_peft(self, folder, base_model)

    @property
    def n_changed(self) -> int:
        """How many numbers the edit changes at most."""
        return sum(edit.n_changed for edit in self.edits)

    def _switch(self, model: nn.Module, *, applied: bool) -> None:
        weights = [_parameter(model, edit.name) for edit in self.edits]
        for edit, weight in zip(self.edits, weights, strict=True):
            if not edit.stands_in(weight, applied=not applied):
                raise EditConflictError(_conflict(edit, weight, applied=applied))
        done = []
        try:
            for edit, weight in zip(self.edits, weights, strict=True):
                done.append((edit, weight))
                edit.write(weight, applied=applied)
        except BaseException:
            for edit, weight in done:
                edit.write(weight, applied=not applied)
            raise


class OriginalWeights(Mapping[str, Tensor]):
    """What the host asks for as `weights_copy`: name -> original tensor, made one at a time when asked for.

    Where an edit changes some neurons there is no copy of the matrix: they are put back into a clone of the weight as
    it stands. So it answers with the weights before *this* edit as long as later edits of them were undone first.

    Attributes:
        edits: The edit this belongs to.
    """

    def __init__(self, model: nn.Module, edits: EditSet, *, restores: bool = True) -> None:
        """Remembers model and edit; with `restores=False` the mapping is empty and the edit stays."""
        self.edits = edits
        self._model = model
        self._by_name: dict[str, list[WeightEdit]] = {}
        for edit in edits.edits if restores else ():
            self._by_name.setdefault(edit.name, []).append(edit)

    def kept(self) -> OriginalWeights:
        """Returns an empty mapping with the same `edits`, for a caller that must not restore anything."""
        return OriginalWeights(self._model, self.edits, restores=False)

    def __getitem__(self, name: str) -> Tensor:
        """Returns a new tensor with the weight as it was before the edit."""
        weight: Tensor = _parameter(self._model, name)
        # Several edits of one weight change different neurons of it.
        for edit in self._by_name[name]:
            weight = edit.original(weight)
        return weight

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names of the changed weights."""
        return iter(self._by_name)

    def __len__(self) -> int:
        """Returns the number of changed weights."""
        return len(self._by_name)


def _parameter(model: nn.Module, name: str) -> Tensor:
    try:
        return base_model(model).get_parameter(name)
    except AttributeError as error:
        raise EditConflictError(
            f'The edit changes "{name}", which this {type(model).__name__} does not have.'
        ) from error


def _conflict(edit: WeightEdit, weight: Tensor, *, applied: bool) -> str:
    if edit.stands_in(weight, applied=applied):
        state = "already applied" if applied else "not applied"
        return f'The edit of "{edit.name}" is {state} on this model; nothing was changed.'
    way_out = (
        "apply it to the model it was computed for" if applied else "undo later edits first, the last one made first"
    )
    return f'The weight "{edit.name}" differs from the one this edit belongs to; {way_out}.'


def applied(
    model: nn.Module, compute: Callable[[nn.Module], EditSet], *, copy: bool, return_orig_weights: bool
) -> tuple[nn.Module, OriginalWeights]:
    """Computes an edit and applies it, as the host's contract asks of every method.

    Args:
        model: The model.
        compute: Makes the edit for the model it is given, whose weights it leaves as they are.
        copy: Edit a copy and leave `model` alone.
        return_orig_weights: Whether the second result restores the weights, or is empty.
    """
    if copy:
        model = deepcopy(model)
    edits = compute(model)
    edits.apply(model)
    return model, OriginalWeights(model, edits, restores=return_orig_weights)
