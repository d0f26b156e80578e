"""Making our methods known to EasyEdit, beside its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from ..edits.apply import OriginalWeights
from ..errors import HostError
from ..methods import METHODS, Method
from .easyedit import Host, load_host
from .memit_delete import MEMITDeleteHyperParams, apply_memit_delete_to_model

_OURS = "_revs_tars_plugin"
# The host's own MEMIT does the writing, so this one needs the host.
MEMIT_DELETE = Method(MEMITDeleteHyperParams, apply_memit_delete_to_model, execute=None, best="smollm2-135m")
# Every method that the host learns of us.
REGISTERED: Mapping[str, Method] = {**METHODS, MEMIT_DELETE.name: MEMIT_DELETE}


def register() -> Host:
    """Makes `alg_name: REVS`, `TARS`, `FT-L-delete` and `MEMIT-delete` work in EasyEdit.

    Afterwards `from easyeditor import REVSHyperParams, TARSHyperParams` and the like work too. Calling it again changes
    nothing.

    Returns:
        The host and its generation.

    Raises:
        HostError: When EasyEdit cannot be imported, or another algorithm already has one of our names; nothing is
            registered then.
    """
    host = load_host()
    algorithms: dict[str, Any] = host.module("util.alg_dict").ALG_DICT
    for name in REGISTERED:
        other = algorithms.get(name)
        if other is not None and not hasattr(other, _OURS):
            raise HostError(
                f'EasyEdit already has another algorithm "{name}" ({other.__module__}); remove it from ALG_DICT '
                "before registering this plugin."
            )
    for name, method in REGISTERED.items():
        if name not in algorithms:
            algorithms[name] = _as_host_calls_it(method, host)
        setattr(host.package, method.hyperparams.__name__, method.hyperparams)
    _allow_batches(host.module("editors.batch_editor").BatchEditor)
    return host


def _as_host_calls_it(method: Method, host: Host) -> Callable[..., Any]:
    """Wraps a method in what the host's generation means by its arguments."""

    @functools.wraps(method.apply)
    def apply(*args: Any, keep_original_weight: bool = False, **kwargs: Any) -> Any:
        model, original = method.apply(*args, keep_original_weight=keep_original_weight, **kwargs)
        # The release restores whatever it is given and means "keep the edit" by keep_original_weight=False. Branch main
        # always passes False and decides by itself (sequential_edit) whether to restore.
        if host.generation == "release" and not keep_original_weight:
            original = _nothing_to_restore(original)
        return model, original

    setattr(apply, _OURS, True)
    return apply


def _nothing_to_restore(original: Mapping[str, Any]) -> Mapping[str, Any]:
    # MEMIT-delete gives what the host's own MEMIT does.
    return original.kept() if isinstance(original, OriginalWeights) else {}


def _allow_batches(batch_editor: Any) -> None:
    """Adds our names to the host's hard-coded list of methods that take many requests at once."""
    hosts_own = batch_editor.is_batchable_method
    if hasattr(hosts_own, _OURS):
        return

    def is_batchable_method(alg_name: str) -> bool:
        return alg_name in REGISTERED or bool(hosts_own(alg_name))

    setattr(is_batchable_method, _OURS, True)
    batch_editor.is_batchable_method = staticmethod(is_batchable_method)
