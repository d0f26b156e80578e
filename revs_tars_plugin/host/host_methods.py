"""What the host knows of its own methods: their settings, the side on which it pads for them, what they read.

All of it is asked of the host itself, so a method that it gains needs nothing here.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from copy import copy
from dataclasses import fields, is_dataclass
from types import ModuleType
from typing import Any

from torch import nn

from ..model.adapters import base_model
from ..model.module_names import ModuleNames
from .easyedit import Host

# Names by which the host's module of `BaseEditor` loads models.
_MODEL_CLASSES = ("AutoModelForCausalLM", "AutoModel", "LlamaForCausalLM", "T5ForConditionalGeneration")


def settings_class(host: Host, alg_name: str) -> Any:
    """Returns the class of a method's settings, as the method's own function names it; None where it names none."""
    function = host.algorithms.get(alg_name)
    if function is None:
        return None
    parameter = inspect.signature(inspect.unwrap(function)).parameters.get("hparams")
    kind = None if parameter is None else parameter.annotation
    if isinstance(kind, str):
        kind = vars(inspect.getmodule(inspect.unwrap(function)) or object).get(kind)
    return kind if is_dataclass(kind) else None


def needs_subject(settings: Any) -> bool:
    """Says whether a method looks things up at the subject of a prompt."""
    return str(getattr(settings, "fact_token", "")).startswith("subject")


def reads_moments(settings: Any) -> bool:
    """Says whether a method reads second moments by the names that the host gives their files."""
    return bool(getattr(settings, "mom2_adjustment", False))


def module_names(model: nn.Module, settings: Any) -> ModuleNames:
    """Returns where a model's parts stand: as a method's settings say, or found in the model where they do not."""
    named = all(hasattr(settings, item.name) for item in fields(ModuleNames))
    return ModuleNames.of(settings) if named else ModuleNames.found_in(model)


def for_loaded_model(model: nn.Module, settings: Any) -> Any:
    """Returns settings for a method of the host that asks the name of the model's folder which family it is of.

    The model is loaded already, so what it is itself stands in place of the folder's name.
    """
    family = getattr(getattr(base_model(model), "config", None), "model_type", "")
    known = {item.name for item in fields(settings)} if is_dataclass(settings) else set()
    if "model_name" not in known or not family or family.startswith("gpt"):
        return settings
    settings = copy(settings)
    settings.model_name = family
    settings.sequential_edit = True  # WISE would forget all but the last request
    return settings


def padding_side(host: Host, model: nn.Module, settings: Any) -> str:
    """Returns the side on which the host pads for a method.

    It decides when it loads a model, by the method's name; so it is let load the one that is there once more.
    """
    module = host.module("editors.editor")
    settings = copy(settings)
    if not hasattr(settings, "model_parallel"):
        settings.model_parallel = False  # which the release's LoRA lacks, although its loading reads it
    loaded = type("Loaded", (), {"from_pretrained": staticmethod(lambda *_args, **_kwargs: model)})
    classes = {name: loaded for name in _MODEL_CLASSES if hasattr(module, name)}
    with _in_place_of(module, {**classes, "make_logs": lambda: None}):
        side: str = module.BaseEditor(settings).tok.padding_side
    return side


@contextlib.contextmanager
def padded(tok: Any, side: str) -> Iterator[None]:
    """Lets a tokenizer pad on a side while a `with` block lasts."""
    before = tok.padding_side
    tok.padding_side = side
    try:
        yield
    finally:
        tok.padding_side = before


@contextlib.contextmanager
def _in_place_of(module: ModuleType, names: dict[str, Any]) -> Iterator[None]:
    kept = {name: getattr(module, name) for name in names}
    vars(module).update(names)
    try:
        yield
    finally:
        vars(module).update(kept)
