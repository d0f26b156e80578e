"""Settings for a model that has no YAML of its own: what measured best, with the names of that model's modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from torch import nn

from .adapters import base_model
from .errors import InputError
from .hyperparams import UnlearnHyperParams, packaged_hparams
from .weight_edits import fingerprint

T = TypeVar("T", bound=UnlearnHyperParams)

MODULE_NAMES = (
    "rewrite_module_tmp",
    "layer_module_tmp",
    "mlp_module_tmp",
    "attn_module_tmp",
    "ln_f_module",
    "lm_head_module",
)
# The packaged settings that measured best, by method.
MEASURED = {"REVS": "smollm2-135m-covariance", "TARS": "smollm2-135m", "FT-L-delete": "smollm2-135m"}
# Names of families that the host has no YAML for.
_GPT_NEOX = {
    "rewrite_module_tmp": "gpt_neox.layers.{}.mlp.dense_4h_to_h",
    "layer_module_tmp": "gpt_neox.layers.{}",
    "mlp_module_tmp": "gpt_neox.layers.{}.mlp",
    "attn_module_tmp": "gpt_neox.layers.{}.attention",
    "ln_f_module": "gpt_neox.final_layer_norm",
    "lm_head_module": "embed_out",
}
# How many layers the model has that they were measured on.
_MEASURED_LAYERS = 30


def known_module_names(model: nn.Module) -> dict[str, Any]:
    """Returns the names of the model's modules: those of the first packaged YAML that it has, or GPT-NeoX's.

    Raises:
        InputError: When no packaged YAML fits.
    """
    inside = base_model(model)
    known = {name for name, _ in inside.named_modules()}
    configs = [
        yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(packaged_hparams("REVS").glob("*.yaml"))
    ]
    for config in (*configs, _GPT_NEOX, {**_GPT_NEOX, "lm_head_module": "lm_head"}):
        names = {key: config[key] for key in MODULE_NAMES}
        if all(name.format(0) in known for name in names.values()):
            return names
    raise InputError(
        f"No packaged settings have the names of this {type(inside).__name__}'s modules; name a YAML that says them, "
        "made after one in hparams/REVS."
    )


def named_modules_only(model: nn.Module) -> UnlearnHyperParams:
    """Returns settings for what needs no more than the names of the modules, as measuring does."""
    return UnlearnHyperParams(alg_name="", model_name="any", **known_module_names(model))


def measured_settings(kind: type[T], model: nn.Module, model_name: str) -> T:
    """Returns the settings of a method that measured best on SmolLM2-135M, for another model.

    Ranks are fractions of the vocabulary, the edited layers the same share of all; module names come from
    `known_module_names`. Second moments are kept apart by the model's weights, not by the name of its folder.

    Args:
        kind: The method's settings.
        model: The model.
        model_name: What it is called.

    Raises:
        InputError: When the model's modules have names that no packaged YAML knows.
    """
    names = known_module_names(model)
    settings = kind.from_hparams(packaged_hparams(kind.ALGORITHM) / f"{MEASURED[kind.ALGORITHM]}.yaml")
    prefix = names["layer_module_tmp"].removesuffix("{}")
    inside = base_model(model)
    count = sum(1 for name, _ in inside.named_modules() if name.startswith(prefix) and name[len(prefix) :].isdigit())
    layers = _at_the_same_depth(settings.layers, count)
    return replace(
        settings,
        **_own_names(settings, names),
        model_name=model_name,
        layers=layers,
        stats_dir=_stats_dir(inside, names),
    )


def _at_the_same_depth(layers: Sequence[int], count: int) -> list[int]:
    """The layers of a deeper or flatter model that lie where these do in the one that was measured."""
    last = max(count - 1, 1)
    there = [layer for layer in range(count) if round(layer * (_MEASURED_LAYERS - 1) / last) in layers]
    return there or sorted({round(layer * last / (_MEASURED_LAYERS - 1)) for layer in layers})


def _own_names(settings: UnlearnHyperParams, names: Mapping[str, str]) -> dict[str, Any]:
    # TARS's defaults edit FF2 alone; names of the other matrices would be SmolLM2's.
    first = {key: "" for key in ("gate_module_tmp", "up_module_tmp") if hasattr(settings, key)}
    return {**names, **first}


def _stats_dir(model: nn.Module, names: Mapping[str, str]) -> str:
    weight = model.get_submodule(names["rewrite_module_tmp"].format(0)).weight
    return str(Path(UnlearnHyperParams.stats_dir) / fingerprint(weight)[:16])  # type: ignore[arg-type]
