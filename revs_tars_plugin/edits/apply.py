"""The host's contract: the function `apply_<method>_to_model` of a method, and the original weights it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from ..model.expert_names import ExpertName
from .edit_set import EditSet
from .places import WeightPlace
from .weight_edits import WeightEdit


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
            # The host knows whole parameters, not one expert's part.
            self._by_name.setdefault(ExpertName.whole(edit.name), []).append(edit)

    def kept(self) -> OriginalWeights:
        """Returns an empty mapping with the same `edits`, for a caller that must not restore anything."""
        return OriginalWeights(self._model, self.edits, restores=False)

    def __getitem__(self, name: str) -> Tensor:
        """Returns a new tensor with the weight as it was before the edit."""
        edits = self._by_name[name]
        weight = WeightPlace.of(self._model, name).weight
        if any(ExpertName.of(edit.name) for edit in edits):
            weight = weight.detach().clone()
        for edit in reversed(edits):
            place = WeightPlace.of(self._model, edit.name)
            if place.expert is None:
                weight = edit.original(place, weight)
            else:
                weight[place.expert] = edit.original(place, weight[place.expert])
        return weight

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names of the changed weights."""
        return iter(self._by_name)

    def __len__(self) -> int:
        """Returns the number of changed weights."""
        return len(self._by_name)


def apply_function(execute: Callable[..., EditSet]) -> Callable[..., tuple[nn.Module, OriginalWeights]]:
    """Returns the function by which the host applies a method: `apply_<method>_to_model` for `execute_<method>`.

    Args:
        execute: Called as `execute(model, tok, requests, hparams)`; makes the edit for the model it is given, whose
            weights it leaves as they are.
    """

    def apply(
        model: nn.Module,
        tok: Any,
        requests: Sequence[Mapping[str, Any]],
        hparams: Any,
        *,
        copy: bool = False,
        return_orig_weights: bool = False,
        cache_template: str | None = None,
        keep_original_weight: bool = False,
        **kwargs: Any,
    ) -> tuple[nn.Module, OriginalWeights]:
        """Edits a model as `execute` computes it, so that what the requests ask to forget is gone; the host's contract.

        Args:
            model: A causal language model.
            tok: Its tokenizer.
            requests: The host's request dictionaries, as `execute` takes them.
            hparams: The method's settings.
            copy: Edit a copy and leave `model` alone.
            return_orig_weights: Return what restores the weights.
            cache_template: Taken for the host's sake; nothing is cached.
            keep_original_weight: Taken for the host's sake; `return_orig_weights` decides.
            **kwargs: Taken for the host's sake.

        Returns:
            The edited model, and the original weights by name (empty without `return_orig_weights`). The second has the
            `EditSet` in its attribute `edits`.

        Raises:
            InputError: When a request, a setting or the model cannot be used; no weight has changed then.
        """
        if copy:
            model = deepcopy(model)
        edits = execute(model, tok, requests, hparams)
        edits.apply_beside(model)  # packed weights stay as they are
        return model, OriginalWeights(model, edits, restores=return_orig_weights)

    apply.__name__ = apply.__qualname__ = f"apply_{execute.__name__.removeprefix('execute_')}_to_model"
    apply.__doc__ = (apply.__doc__ or "").replace("`execute`", f"`{execute.__name__}`")
    apply.__module__ = execute.__module__
    return apply
