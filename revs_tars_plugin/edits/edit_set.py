"""Edits as things: exact changes of a model that can be applied and undone to the very bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import nn, no_grad

from ..errors import EditConflictError, InputError
from ..model.packed import put, spread
from ..model.tensors import fingerprint
from .files import SavedEdit, read_edit, write_edit
from .peft import export_peft
from .places import AppliedProduct, WeightPlace
from .weight_edits import LowRankEdit, NeuronEdit, WeightEdit


class Outcome(Protocol):
    """What became of one thing that a method was asked to forget."""

    @property
    def reached(self) -> bool:
        """Whether it got where the settings want it."""
        ...

    def row(self) -> dict[str, Any]:
        """Returns its line of a table: figures by their headings, and no secret."""
        ...

    def counted_on(self, earlier: int) -> Outcome:
        """Returns the same of a call that had so many requests before this one's."""
        ...


class _Applied(WeakKeyDictionary[nn.Module, list[AppliedProduct]]):
    """What an edit keeps for the modules it is applied to; a copy that is pickled is applied nowhere."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


@dataclass(frozen=True)
class EditSet:
    """All changes that one call of a method makes to a model, and what it found on the way.

    Attributes:
        method: The algorithm's name.
        edits: The changes in the order in which they are made; a weight may be changed more than once.
        outcomes: What became of each target, as the method's own records.
        settings: The method's settings, plain values.
        requests: What was asked for. It holds the secrets, so it is neither printed nor, unless asked for, saved.
        packed: Whether it was made for packed weights: it can be put beside them, or onto unpacked ones.
    """

    method: str
    edits: tuple[WeightEdit, ...]
    outcomes: tuple[Outcome, ...] = field(default=())
    settings: Mapping[str, Any] = field(default_factory=dict)
    requests: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    packed: bool = False
    # What stood in each module before this edit was applied there: it lives as long as the edit and the module do.
    _applied: _Applied = field(default_factory=_Applied, init=False, repr=False, compare=False)

    @classmethod
    def in_order(cls, parts: Sequence[EditSet]) -> EditSet:
        """Joins edits that were applied one after another, of one or several calls, into one that does all of it.

        It keeps for the models they are applied to what the parts keep, so it can undo them after the parts are gone.

        Args:
            parts: At least one, the first one applied first; the settings are the first one's.
        """
        joined = cls(
            parts[0].method,
            tuple(edit for part in parts for edit in part.edits),
            _outcomes_in_order(parts),
            settings=parts[0].settings,
            requests=tuple(request for part in parts for request in part.requests),
            packed=any(part.packed for part in parts),
        )
        for part in parts:
            for module, products in part._applied.items():
                joined._applied.setdefault(module, []).extend(products)
        return joined

    def apply(self, model: nn.Module) -> None:
        """Writes the edit into the model's weights, all of it or nothing.

        Raises:
            EditConflictError: When a weight is not, bit for bit, the one the edit was computed for.
        """
        done: list[tuple[WeightEdit, WeightPlace]] = []
        try:
            for edit, place in self._places(model):
                # What an earlier entry wrote is what this one was computed for, but for rounding on other devices.
                overlaid = isinstance(edit, LowRankEdit) and any(place == other for _, other in done)
                if not overlaid and not edit.stands_in(place, applied=False):
                    raise EditConflictError(_conflict(edit, place, applying=True))
                if all(place.module is not other.module for _, other in done):
                    self._applied[place.module] = []
                done.append((edit, place))
                edit.prepare(place, self._applied[place.module])
                edit.write(place, applied=True)
        except BaseException:
            for edit, place in reversed(done):
                edit.write(place, applied=False)
            self._forget(done)
            raise

    def apply_beside(self, model: nn.Module) -> None:
        """Applies an edit to the model that it was made for, packed or not, in memory.

        Packed weights stay as they are, with the edit on top of what they compute; see `SpreadLinear`. Such a model can
        be measured, and the edit undone. To keep it, write the adapter (`to_peft`).

        Raises:
            EditConflictError: As `apply`.
        """
        names = [edit.name.removesuffix(".weight") for edit in self.edits] if self.packed else []
        replaced = spread(model, names)
        try:
            self.apply(model)
        except BaseException:
            put(model, replaced)
            raise

    def undo(self, model: nn.Module) -> None:
        """Puts the very bits back that stood before the edit, all of them or nothing.

        An edit of the same content that was loaded from a file can take it back as well, while the applied one lives.

        Raises:
            EditConflictError: When the edit is not in place, or a later edit changed the same weights.
            InputError: When it holds no change.
        """
        self._refuse_empty("undo")
        done: list[tuple[WeightEdit, WeightPlace]] = []
        try:
            for edit, place in reversed(self._places(model)):
                if not edit.stands_in(place, applied=True):
                    raise EditConflictError(_conflict(edit, place, applying=False))
                done.append((edit, place))
                edit.write(place, applied=False)
        except BaseException:
            for edit, place in reversed(done):
                edit.write(place, applied=True)
            raise
        self._forget(done)

    def stands_in(self, model: nn.Module) -> bool:
        """Says whether the model's weights are as this edit left them; an edit that holds no change stands in none."""
        # What a later entry of the same weight wrote over need not stand; neurons that it left alone have to.
        written: dict[str, set[int]] = {}
        for edit in reversed(self.edits):
            own = set(edit.indices.tolist()) if isinstance(edit, NeuronEdit) else set()
            last = edit.name not in written
            if (last or (own and own.isdisjoint(written[edit.name]))) and not edit.stands_in(
                WeightPlace.of(model, edit.name), applied=True
            ):
                return False
            written.setdefault(edit.name, set()).update(own)
        return bool(self.edits)

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
        pairs = [(WeightPlace.of(model, name), WeightPlace.of(base, name)) for name in names]
        self.apply(base)
        try:
            for name, (edited, original) in zip(names, pairs, strict=True):
                if fingerprint(edited.weight) != fingerprint(original.weight):
                    raise EditConflictError(
                        f'The weight "{name}" is not the base\'s with this edit; undo later edits first, and load both '
                        "in the dtype they were saved in."
                    )
        finally:
            self.undo(base)
        with no_grad():
            for edited, original in pairs:
                edited.weight.copy_(original.weight)

    def of_call(
        self, requests: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], *, packed: bool = False
    ) -> EditSet:
        """Returns the same edit with what it was computed from."""
        asked = tuple(dict(request) for request in requests)
        return replace(self, requests=asked, settings=dict(settings), packed=packed)

    def onto(self, model: nn.Module) -> EditSet:
        """Returns the same change for other weights: of an edit that was made for packed ones, the unpacked ones.

        What holds there has to be measured there: another weight is another rank.

        Args:
            model: The model that it is to be applied to; it stays as it is.

        Raises:
            EditConflictError: When it has other weights, of other shapes.
        """
        weights: dict[str, torch.Tensor] = {}
        edits = []
        for edit, place in self._places(model):
            weight = weights.setdefault(edit.name, place.weight.detach().clone())
            try:
                edits.append(edit.onto(weight))
            except (RuntimeError, IndexError, ValueError) as error:
                raise EditConflictError(
                    f'The weight "{edit.name}" has another shape than the one this edit was made for; name the model '
                    "that was packed."
                ) from error
        return replace(self, edits=tuple(edits), packed=False)

    def save(self, path: str | Path, *, include_requests: bool = False) -> None:
        """Writes the edit into one safetensors file; a crash on the way leaves the old file or none.

        The file holds the changed neurons before and after, or the factors of the products; and as metadata the method,
        its settings, a fingerprint of what stood in every touched weight, library versions and the time. It does not
        hold the secrets, but the direction of a change shows which token was demoted: the file is as sensitive as the
        secret.

        Args:
            path: The file, `.safetensors` by custom.
            include_requests: Also write the requests, secrets and all.

        Raises:
            EditFileError: When it cannot be written; what stood there before is as it was.
            InputError: When it holds no change.
        """
        self._refuse_empty("save")
        requests = self.requests if include_requests else None
        write_edit(path, SavedEdit(self.method, self.edits, self.settings, requests, self.packed))

    @classmethod
    def load(cls, path: str | Path) -> EditSet:
        """Reads what `save` wrote; nothing in the file is ever executed.

        Raises:
            EditFileError: When the file is missing, truncated, of another kind or a newer version, or was changed.
        """
        saved = read_edit(path)
        return cls(
            saved.method, saved.edits, settings=saved.settings, requests=saved.requests or (), packed=saved.packed
        )

    def to_peft(self, folder: str | Path, base_model: str = "") -> None:
        """Writes the edit as a LoRA adapter that plain `peft` loads; see `export_peft`.

        Args:
            folder: Made where it is missing.
            base_model: What the adapter's config names as its base; by default the settings' `model_name`.

        Raises:
            InputError: When peft is missing, the edit changes nothing, or the folder cannot be written.
        """
        export_peft(self.edits, folder, base_model or str(self.settings.get("model_name", "")))

    @property
    def n_changed(self) -> int:
        """How many numbers the edit changes at most; what several entries change counts once."""
        by_weight: dict[str, list[WeightEdit]] = {}
        for edit in self.edits:
            by_weight.setdefault(edit.name, []).append(edit)
        return sum(_n_changed(edits) for edits in by_weight.values())

    def _places(self, model: nn.Module) -> list[tuple[WeightEdit, WeightPlace]]:
        places = [(edit, WeightPlace.of(model, edit.name)) for edit in self.edits]
        for edit, place in places:
            if place.weight.ndim != 2:
                raise EditConflictError(f'The weight "{edit.name}" is no matrix; this edit belongs to another model.')
        return places

    def _forget(self, places: Sequence[tuple[WeightEdit, WeightPlace]]) -> None:
        for edit, place in places:
            edit.forget(place)
            self._applied.pop(place.module, None)

    def _refuse_empty(self, what: str) -> None:
        if not self.edits:
            raise InputError(
                f"There is nothing to {what}: this {self.method} edit holds no change, because the model was restored "
                "after it (sequential_edit=True keeps it; on EasyEdit's release keep_original_weight=False) or because "
                "there was nothing to forget that it still knew."
            )


def _outcomes_in_order(parts: Sequence[EditSet]) -> tuple[Outcome, ...]:
    """The outcomes of all parts; requests are counted on from part to part."""
    outcomes: list[Outcome] = []
    earlier = 0
    for part in parts:
        outcomes += [outcome.counted_on(earlier) for outcome in part.outcomes]
        earlier += len(part.requests)
    return tuple(outcomes)


def _n_changed(edits: Sequence[WeightEdit]) -> int:
    """How many numbers of one weight several edits change at most."""
    neurons = [edit for edit in edits if isinstance(edit, NeuronEdit)]
    if len(neurons) < len(edits):
        return max(edit.n_changed for edit in edits)
    distinct = len(set(torch.cat([edit.indices for edit in neurons]).tolist()))
    return distinct * neurons[0].after.shape[1]


def _conflict(edit: WeightEdit, place: WeightPlace, *, applying: bool) -> str:
    if edit.stands_in(place, applied=applying):
        state = "already applied" if applying else "not applied"
        return f'The edit of "{edit.name}" is {state} on this model; nothing was changed.'
    way_out = (
        "apply it to the model it was computed for"
        if applying
        else "undo later edits first, the last one made first, or take it out of a reloaded model with undo_by_base"
    )
    return f'The weight "{edit.name}" differs from the one this edit belongs to; {way_out}.'
