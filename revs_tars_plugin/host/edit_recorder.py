"""Taking back what any method of the host did, whatever the host itself restores."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..edits.apply import OriginalWeights
from ..edits.edit_set import EditSet
from ..errors import HostError
from ..evaluation.peak_memory import peak_memory
from ..model.adapters import base_model


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
        self._uses_cache = getattr(getattr(model, "config", None), "use_cache", None)
        self._done: list[EditSet | Mapping[str, Tensor] | Callable[[], Any]] = []
        self._adapter: Any = None
        self.seconds = 0.0
        self.peak_mib = 0.0

    @property
    def edits(self) -> tuple[EditSet, ...]:
        """Our own methods' edits."""
        return tuple(done for done in self._done if isinstance(done, EditSet) and done.edits)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the method; what it gives the host leaves the edit in place."""
        kwargs = {**kwargs, "copy": False, "return_orig_weights": True}
        # With an adapter this would mean a second one beside the first.
        kwargs["keep_original_weight"] = self._adapter is None
        if not self._done and "reset_cache" in inspect.signature(self._apply).parameters:
            kwargs["reset_cache"] = True  # AlphaEdit's memory of what it wrote before, into whatever model
        start = time.perf_counter()
        with peak_memory() as peak:
            result = self._apply(*args, **kwargs)
        self.seconds += time.perf_counter() - start
        self.peak_mib = max(self.peak_mib, peak.mib)
        if not isinstance(result, tuple) or len(result) != 2:
            raise HostError(
                f"{self._alg_name} answers otherwise than a method that edits weights; it cannot be taken back."
            )
        model, original = result
        if isinstance(original, OriginalWeights):
            self._done.append(original.edits)
            self._restore_gradients()
            return model, original.kept()
        if hasattr(model, "peft_config") and base_model(model) is self._model:
            self._adapter = model
            return model, _NothingToRestore()
        self._restore_gradients()
        # External memories stand around the model, and give what takes them away.
        inside = model is self._model or (callable(original) and getattr(model, "model", None) is self._model)
        if original is None or not inside:
            raise HostError(
                f"{self._alg_name} gives another model instead of editing weights; it cannot be taken back."
            )
        self._done.append(original if callable(original) else dict(original))
        return model, _NothingToRestore()

    def _restore_gradients(self) -> None:
        """The host's methods switch gradients of weights on and off and leave them so."""
        for parameter, flag in self._wanted:
            parameter.requires_grad_(flag)

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
        changed = self._without_adapter()
        edited = {name: self._model.get_parameter(name).detach().clone() for name in self.names()}
        while self._done:
            done = self._done.pop()
            if isinstance(done, EditSet):
                if done.edits:
                    done.undo(self._model)
            elif callable(done):
                with torch.no_grad():
                    done()
            else:
                with torch.no_grad():
                    for name, value in done.items():
                        self._model.get_parameter(name).copy_(value)
        self._restore_gradients()
        return changed + sum(int((self._model.get_parameter(name) != value).sum()) for name, value in edited.items())

    def _without_adapter(self) -> int:
        """Takes an adapter off, and what LoRA switched on for it; returns how many numbers it acted on."""
        if self._adapter is None:
            return 0
        layers = [module.base_layer for module in self._adapter.modules() if hasattr(module, "base_layer")]
        changed = sum(layer.weight.numel() for layer in layers)
        self._adapter.unload()
        self._adapter = None
        model: Any = self._model
        if hasattr(model, "peft_config"):
            del model.peft_config
        model.gradient_checkpointing_disable()
        model.disable_input_require_grads()
        model.config.use_cache = self._uses_cache
        return changed


class _NothingToRestore(dict):
    """What the host is given in place of the original weights: it may look through it, or call it."""

    def __call__(self) -> None:
        """Restores nothing."""
