"""Taking back what any method of the host did, whatever the host itself restores."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..edits.apply import OriginalWeights
from ..edits.edit_set import EditSet
from ..edits.places import WeightPlace
from ..errors import HostError
from ..evaluation.peak_memory import peak_memory
from ..methods import METHODS
from ..model.adapters import base_model


class EditRecorder:
    """Stands in for a method while the host runs it, one or many times, and remembers how the model was before.

    What our own methods do is taken back by their edits. The host's may change weights that they do not name, put an
    adapter or a memory in a layer's place, and switch flags; so of theirs the whole model is remembered.

    Attributes:
        edits: Our own methods' edits, in order.
        seconds: Time within the method, the host's evaluation not counted.
        peak_mib: The most memory that a call held beyond what was held before, in MiB.
    """

    def __init__(self, model: nn.Module, apply: Callable[..., Any], alg_name: str) -> None:
        """Wraps a method as it stands in the host's table of algorithms."""
        self._model, self._apply, self._alg_name = model, apply, alg_name
        self._before = None if alg_name in METHODS else _ModelBefore(model)
        self._edits: list[EditSet] = []
        self._adapted = False
        self.seconds = 0.0
        self.peak_mib = 0.0

    @property
    def edits(self) -> tuple[EditSet, ...]:
        """Our own methods' edits."""
        return tuple(edits for edits in self._edits if edits.edits)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the method; what it gives the host leaves the edit in place."""
        kwargs = {**kwargs, "copy": False, "return_orig_weights": True}
        # With an adapter in place, keeping the original weights would mean another one beside it.
        kwargs["keep_original_weight"] = not self._adapted
        if not self.seconds and "reset_cache" in inspect.signature(self._apply).parameters:
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
            self._edits.append(original.edits)
            return model, original.kept()
        self._adapted = hasattr(model, "peft_config")
        # An adapter and an external memory stand around the model, with it inside.
        inside = base_model(model) if self._adapted else getattr(model, "model", None)
        if original is None or (model is not self._model and inside is not self._model):
            raise HostError(
                f"{self._alg_name} gives another model instead of editing weights; it cannot be taken back."
            )
        if self._before is not None and not self._adapted:
            self._before.restore_gradients()
        return model, _NothingToRestore()

    def restore(self) -> int:
        """Takes everything back, the last change first.

        Returns:
            How many numbers were different; of an adapter, how many it acted on.
        """
        if self._before is not None:
            return self._before.restore(self._model)
        names = {edit.name for edits in self._edits for edit in edits.edits}
        places = {name: WeightPlace.of(self._model, name) for name in names}
        edited = {name: place.weight.detach().clone() for name, place in places.items()}
        for edits in reversed(self.edits):
            edits.undo(self._model)
        self._edits.clear()
        return sum(int((places[name].weight != value).sum()) for name, value in edited.items())


class _ModelBefore:
    """A model's modules, weights and flags, to be put back whatever was done to it."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = dict(model.named_modules())
        weights = (*model.parameters(), *model.buffers())
        self._weights = [(weight, weight.detach().clone(), weight.requires_grad) for weight in weights]
        self._parameters = {module: dict(module._parameters) for module in self._modules.values()}
        self._training = {name: module.training for name, module in self._modules.items()}
        self._uses_cache = getattr(getattr(model, "config", None), "use_cache", None)

    def restore_gradients(self) -> None:
        """Sets whether weights have gradients, which the host's methods leave as they used them, and drops these.

        Another method's optimizer would step along them.
        """
        for weight, _, wanted in self._weights:
            weight.requires_grad_(wanted)
            weight.grad = None

    @torch.no_grad()
    def restore(self, model: Any) -> int:
        """Puts everything back; returns how many numbers were different."""
        adapted = [module.base_layer for module in model.modules() if hasattr(module, "base_layer")]
        changed: int = sum(layer.weight.numel() for layer in adapted)
        for name, module in self._modules.items():
            parent, _, last = name.rpartition(".")
            if name and getattr(self._modules[parent], last) is not module:
                setattr(self._modules[parent], last, module)
            module.training = self._training[name]
        for module, parameters in self._parameters.items():
            for name, parameter in parameters.items():
                if module._parameters.get(name) is not parameter:
                    changed += 0 if parameter is None else parameter.numel()
                    module._parameters[name] = parameter
        for weight, before, _ in self._weights:
            changed += int((weight != before).sum())
            weight.copy_(before)
        self.restore_gradients()
        # What LoRA leaves behind.
        if hasattr(model, "peft_config"):
            del model.peft_config
        if getattr(model, "is_gradient_checkpointing", False):
            model.gradient_checkpointing_disable()
            model.disable_input_require_grads()
        if self._uses_cache is not None:
            model.config.use_cache = self._uses_cache
        return changed


class _NothingToRestore(dict):
    """What the host is given in place of the original weights: it may look through it, or call it."""

    def __call__(self) -> None:
        """Restores nothing."""
