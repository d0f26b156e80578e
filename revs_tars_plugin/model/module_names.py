"""The names of a model's modules: from a method's settings, or found in the model itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import yaml
from torch import nn

from ..errors import InputError
from ..hyperparams import check_templates, packaged_hparams
from .adapters import base_model


@dataclass(frozen=True)
class ModuleNames:
    """Where a model's parts stand, under the host's keys; `{}` stands for the layer.

    Attributes:
        rewrite_module_tmp: FF2, the second feed-forward matrix.
        layer_module_tmp: A decoder layer.
        mlp_module_tmp: A layer's feed-forward block.
        ln_f_module: The final norm.
        lm_head_module: The head, or the embedding where the two are tied.
        attn_module_tmp: A layer's attention; empty where nothing looks at it.
    """

    rewrite_module_tmp: str
    layer_module_tmp: str
    mlp_module_tmp: str
    ln_f_module: str
    lm_head_module: str
    attn_module_tmp: str = ""

    def __post_init__(self) -> None:
        """Checks that each template has its place for the layer."""
        check_templates(self)

    @classmethod
    def of(cls, settings: Any) -> ModuleNames:
        """Returns the names that settings hold: of one of our methods, of one of the host's, or the names themselves.

        Raises:
            InputError: When the settings name no modules.
        """
        if isinstance(settings, cls):
            return settings
        named = {item.name: getattr(settings, item.name, None) for item in fields(cls)}
        named["attn_module_tmp"] = named["attn_module_tmp"] or ""
        missing = [name for name, value in named.items() if not isinstance(value, str)]
        if missing:
            raise InputError(
                f"{type(settings).__name__} has no {', '.join(missing)}; give the settings of a method that edits "
                "weights."
            )
        # The host's FT names the parameter, its other methods the module.
        named["rewrite_module_tmp"] = str(named["rewrite_module_tmp"]).removesuffix(".weight")
        return cls(**named)  # type: ignore[arg-type]

    @classmethod
    def found_in(cls, model: nn.Module) -> ModuleNames:
        """Returns the names of a model's modules: those of the first packaged YAML that it has, or GPT-NeoX's.

        Raises:
            InputError: When no packaged YAML fits.
        """
        inside = base_model(model)
        present = {name for name, _ in inside.named_modules()}
        paths = sorted(packaged_hparams("REVS").glob("*.yaml"))
        packaged = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths)
        keys = [item.name for item in fields(cls)]
        for config in (*packaged, *_UNPACKAGED):
            names = {key: config[key] for key in keys}
            if all(name.format(0) in present for name in names.values()):
                _check_last_layer(names, present)
                return cls(**names)
        raise InputError(
            f"No packaged settings have the names of this {type(inside).__name__}'s modules; name a YAML that says "
            "them, made after one in hparams/REVS."
        )

    def to_dict(self) -> dict[str, str]:
        """Returns the names by the host's keys."""
        return asdict(self)


# What feed-forward blocks call their gate, and what it gates or the only first matrix.
_FIRST = (
    ("gate_proj", "up_proj"),
    ("w2", "w1"),
    ("", "c_fc"),
    ("", "fc_in"),
    ("", "fc1"),
    ("", "dense_h_to_4h"),
)


def first_matrix_names(model: nn.Module, names: ModuleNames) -> dict[str, str]:
    """Returns the names of the matrices that read the residual space, as `gate_module_tmp` and `up_module_tmp`.

    A name is empty where there is no such matrix, or it has not one row a neuron (gate and up in one, experts).

    Args:
        model: The model.
        names: The names of its other modules.
    """
    inside = base_model(model)
    modules = dict(inside.named_modules())
    block = names.rewrite_module_tmp.rpartition(".")[0]
    second = modules[names.rewrite_module_tmp.format(0)]
    # A Conv1D says only how much it gives; what its weight begins with is what it takes.
    neurons = getattr(second, "in_features", None) or (second.weight.shape[0] if hasattr(second, "nf") else None)
    for gate, up in _FIRST:
        found = [modules.get(f"{block}.{name}".format(0)) for name in (gate, up) if name]
        gives = [getattr(module, "out_features", None) or getattr(module, "nf", None) for module in found]
        if neurons is not None and gives == [neurons] * len(found):
            return {"gate_module_tmp": f"{block}.{gate}" if gate else "", "up_module_tmp": f"{block}.{up}"}
    return {"gate_module_tmp": "", "up_module_tmp": ""}


def _check_last_layer(names: dict[str, str], present: set[str]) -> None:
    """Refuses models whose last layer is of another kind than the first: experts behind a dense one."""
    last = 0
    while names["layer_module_tmp"].format(last + 1) in present:
        last += 1
    for key in ("rewrite_module_tmp", "mlp_module_tmp"):
        if names[key].format(last) not in present:
            raise InputError(
                f'{key}: layer 0 has a "{names[key].format(0)}", and layer {last} has none: the layers are of several '
                "kinds. Name a YAML for one kind, with its layers."
            )


# Names of families that the host has no YAML for.
_GPT_NEOX = {
    "rewrite_module_tmp": "gpt_neox.layers.{}.mlp.dense_4h_to_h",
    "layer_module_tmp": "gpt_neox.layers.{}",
    "mlp_module_tmp": "gpt_neox.layers.{}.mlp",
    "attn_module_tmp": "gpt_neox.layers.{}.attention",
    "ln_f_module": "gpt_neox.final_layer_norm",
    "lm_head_module": "embed_out",
}
# Mixtral before transformers 5.
_MIXTRAL = {
    "rewrite_module_tmp": "model.layers.{}.block_sparse_moe.experts",
    "layer_module_tmp": "model.layers.{}",
    "mlp_module_tmp": "model.layers.{}.block_sparse_moe",
    "attn_module_tmp": "model.layers.{}.self_attn",
    "ln_f_module": "model.norm",
    "lm_head_module": "lm_head",
}
_UNPACKAGED = (_GPT_NEOX, {**_GPT_NEOX, "lm_head_module": "lm_head"}, _MIXTRAL)
