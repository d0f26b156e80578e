"""Taking back what any method of the host did, whatever the host itself restores."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..edits.apply import OriginalWeights
from ..edits.edit_set import EditSet
from ..errors import HostError
from ..evaluation.peak_memory import peak_memory


class EditRecorder:
    """Stands in for a method while the host runs it, one or many times, and remembers how the weights were before.

    Attributes:
        edits: Our own methods' edits, in order.
        seconds: Time within the method, the host's evaluation not counted.
        peak_mib: The most memory that a call held beyond what was held before, in MiB.
    """

    def __init__(self, model: nn.Module, apply: Callable[..., Any], alg_name: str) -> None:
        """Wraps a method as it stands in the host's table of algorithms."""
        self._model, self._apply, self._alg_name = model, apply, alg_name
        self._wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        self._done: list[EditSet | Mapping[str, Tensor] | Callable[[], Any]] = []
        self.seconds = 0.0
        self.peak_mib = 0.0

    @property
    def edits(self) -> tuple[EditSet, ...]:
        """Our own methods' edits."""
        return tuple(done for done in self._done if isinstance(done, EditSet))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the method; what it gives the host leaves the edit in place."""
        kwargs = {**kwargs, "copy": False, "return_orig_weights": True, "keep_original_weight": True}
        start = time.perf_counter()
        with peak_memory() as peak:
            result = self._apply(*args, **kwargs)
        self.seconds += time.perf_counter() - start
        self.peak_mib = max(self.peak_mib, peak.mib)
        # The host's methods switch gradients of weights on and off and leave them so.
        for parameter, flag in self._wanted:
            parameter.requires_grad_(flag)
        if not isinstance(result, tuple) or len(result) != 2:
            raise HostError(
                f"{self._alg_name} answers otherwise than a method that edits weights; it cannot be taken back."
            )
        model, original = result
        if isinstance(original, OriginalWeights):
            self._done.append(original.edits)
            return model, original.kept()
        if original is None or model is not self._model:
            raise HostError(
                f"{self._alg_name} gives another model instead of editing weights; it cannot be taken back."
            )
        self._done.append(original if callable(original) else dict(original))
        return model, _NothingToRestore()

    def names(self) -> list[str]:
        """Returns the names of all weights that may have changed."""
        names: dict[str, None] = {}
        for done in self._done:
            if isinstance(done, EditSet):
                names.update(dict.fromkeys(edit.name for edit in done.edits))
            elif isinstance(done, Mapping):
                names.update(dict.fromkeys(done))
        return list(names)

    def restore(self) -> int:
        """Takes everything back, the last change first.

        Returns:
            How many numbers were different.
        """
        edited = {name: self._model.get_parameter(name).detach().clone() for name in self.names()}
        while self._done:
            done = self._done.pop()
            if isinstance(done, EditSet):
                done.undo(self._model)
            elif callable(done):
                done()
            else:
                with torch.no_grad():
                    for name, value in done.items():
                        self._model.get_parameter(name).copy_(value)
        return sum(int((self._model.get_parameter(name) != value).sum()) for name, value in edited.items())


class _NothingToRestore(dict):
    """What the host is given in place of the original weights: it may look through it, or call it."""

    def __call__(self) -> None:
        """Restores nothing."""
