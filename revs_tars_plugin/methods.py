"""The methods: the one table that command line, host, cards, reports and documents read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from .errors import InputError, did_you_mean
from .ft_l_delete import FTLDeleteHyperParams, apply_ft_l_delete_to_model, execute_ft_l_delete
from .hyperparams import UnlearnHyperParams, packaged_hparams
from .model.adapters import base_model
from .model.module_names import ModuleNames, first_matrix_names
from .model.offloaded import weights_of
from .model.packed import computing_dtype, is_packed, spread_out
from .model.tensors import fingerprint
from .revs import REVSHyperParams, apply_revs_to_model, execute_revs
from .tars import TARSHyperParams, apply_tars_to_model, execute_tars


@dataclass(frozen=True)
class Paper:
    """Where a method was published.

    Attributes:
        title: The paper's title.
        address: Its address.
    """

    title: str
    address: str


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        hyperparams: The class of its settings; the class knows the method's name.
        apply: `apply_<method>_to_model`, the host's contract.
        execute: `execute_<method>`, which computes the edit and leaves the model alone; None where only the host can
            run the method.
        best: The packaged settings that measured best.
        paper: Where it was published; None for what the papers compare with.
        resumes: Whether `execute` takes `unfinished`, a folder with which a call that was stopped goes on.
    """

    hyperparams: type[UnlearnHyperParams]
    apply: Callable[..., Any]
    execute: Callable[..., Any] | None
    best: str
    paper: Paper | None = None
    resumes: bool = False

    @property
    def name(self) -> str:
        """The method's `alg_name`."""
        return self.hyperparams.ALGORITHM

    @property
    def package(self) -> str:
        """The name of the package that holds it, in the host as well as here."""
        return self.name.lower().replace("-", "_")

    @property
    def best_file(self) -> Path:
        """The packaged YAML of the settings that measured best."""
        return packaged_hparams(self.name) / f"{self.best}.yaml"


METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method(
            REVSHyperParams,
            apply_revs_to_model,
            execute_revs,
            best="smollm2-135m",
            paper=Paper(
                "REVS: Unlearning Sensitive Information in Language Models via Rank Editing in the Vocabulary Space",
                "https://arxiv.org/abs/2406.09325",
            ),
            resumes=True,
        ),
        Method(
            TARSHyperParams,
            apply_tars_to_model,
            execute_tars,
            best="smollm2-135m",
            paper=Paper(
                "Targeted Angular Reversal of Weights for Knowledge Removal in Large Language Models",
                "https://arxiv.org/abs/2412.10257",
            ),
        ),
        Method(FTLDeleteHyperParams, apply_ft_l_delete_to_model, execute_ft_l_delete, best="smollm2-135m"),
    )
}

# How many layers the model has that the packaged settings were measured on.
_MEASURED_LAYERS = 30


def method_of(name: str) -> Method:
    """Returns the method of a name.

    Raises:
        InputError: When there is none.
    """
    if name not in METHODS:
        raise InputError(
            f'There is no method "{name}"; it must be one of {", ".join(METHODS)}{did_you_mean(name, METHODS)}'
        )
    return METHODS[name]


def measured_settings(method: Method, model: nn.Module, model_name: str) -> Any:
    """Returns the settings of a method that measured best on SmolLM2-135M, for another model.

    Ranks are fractions of the vocabulary, the edited layers the same share of all; module names are found in the model.
    Second moments are kept apart by the model's weights, not by the name of its folder.

    Args:
        method: The method.
        model: The model.
        model_name: What it is called.

    Raises:
        InputError: When the model's modules have names that no packaged YAML knows.
    """
    names = ModuleNames.found_in(model)
    settings: Any = method.hyperparams.from_hparams(method.best_file)
    inside = base_model(model)
    prefix = names.layer_module_tmp.removesuffix("{}")
    count = sum(1 for name, _ in inside.named_modules() if name.startswith(prefix) and name[len(prefix) :].isdigit())
    own: dict[str, Any] = {}
    if isinstance(settings, TARSHyperParams):
        own |= first_matrix_names(model, names)
        own["spelling_layer"] = _at_the_same_depth([settings.spelling_layer], count)[0]
        if not own["up_module_tmp"]:
            own["directions"] = ["to_name"]
    return replace(
        settings,
        **names.to_dict(),
        **own,
        model_name=model_name,
        layers=_at_the_same_depth(settings.layers, count),
        stats_dir=stats_folder(model),
    )


def _at_the_same_depth(layers: Sequence[int], count: int) -> list[int]:
    """The layers of a deeper or flatter model that lie where these do in the one that was measured."""
    last = max(count - 1, 1)
    there = [layer for layer in range(count) if round(layer * (_MEASURED_LAYERS - 1) / last) in layers]
    return there or sorted({round(layer * last / (_MEASURED_LAYERS - 1)) for layer in layers})


def stats_folder(model: nn.Module) -> str:
    """Returns where second moments of a model are kept: by its weights, not by the name of its folder."""
    names = ModuleNames.found_in(model)
    name = names.rewrite_module_tmp.format(0)
    module = base_model(model).get_submodule(name)
    # Of experts their largest parameter; packed ones of every kind are told apart by what they do.
    weight = (
        spread_out(module, name, computing_dtype(model))
        if is_packed(module)
        else max(weights_of(module).values(), key=lambda parameter: parameter.numel())
    )
    return str(Path(UnlearnHyperParams.stats_dir) / fingerprint(weight)[:16])
