"""The names of a model's modules, taken from any method's settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import InputError
from ..hyperparams import UnlearnHyperParams

_NEEDED = ("rewrite_module_tmp", "layer_module_tmp", "mlp_module_tmp", "ln_f_module", "lm_head_module")


def module_names(hparams: Any, layers: Sequence[int] = ()) -> UnlearnHyperParams:
    """Returns settings with the module names of a host's method, for what needs no more than these.

    Args:
        hparams: Settings of any method of the host that edits weights.
        layers: The layers to look at; empty means all.

    Raises:
        InputError: When the settings name no modules.
    """
    missing = [name for name in _NEEDED if not isinstance(getattr(hparams, name, None), str)]
    if missing:
        raise InputError(
            f"{type(hparams).__name__} has no {', '.join(missing)}; give the settings of a method that edits weights."
        )
    names = {name: getattr(hparams, name) for name in _NEEDED}
    # The host's FT names the parameter, its other methods the module.
    names["rewrite_module_tmp"] = names["rewrite_module_tmp"].removesuffix(".weight")
    attention = getattr(hparams, "attn_module_tmp", "") or ""
    return UnlearnHyperParams(alg_name="", model_name="any", attn_module_tmp=attention, layers=list(layers), **names)
