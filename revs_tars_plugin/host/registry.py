"""Making our methods known to EasyEdit, beside its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from ..edits.apply import OriginalWeights
from ..errors import HostError
from ..methods import METHODS, Method
from .easyedit import Host, load_host
from .host_call import EDITORS_OF_HOST, OURS, current_call, keeping_all, taking_forget
from .memit_delete import MEMITDeleteHyperParams, apply_memit_delete_to_model

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
    algorithms = host.algorithms
    for name in REGISTERED:
        other = algorithms.get(name)
        if other is not None and not hasattr(other, OURS):
            raise HostError(
                f'EasyEdit already has another algorithm "{name}" ({other.__module__}); remove it from ALG_DICT '
                "before registering this plugin."
            )
    for name, method in REGISTERED.items():
        if name not in algorithms:
            algorithms[name] = _as_host_calls_it(method, host)
        setattr(host.package, method.hyperparams.__name__, method.hyperparams)
    _allow_batches(host.module("editors.batch_editor").BatchEditor)
    _wrap_editors(host)
    return host


def _as_host_calls_it(method: Method, host: Host) -> Callable[..., Any]:
    """Wraps a method in what the host's generation means by its arguments."""

    @functools.wraps(method.apply)
    def apply(*args: Any, keep_original_weight: bool = False, **kwargs: Any) -> Any:
        model, original = method.apply(*args, keep_original_weight=keep_original_weight, **kwargs)
        call = current_call()
        if call is not None and isinstance(original, OriginalWeights):
            call.add(original.edits)
        # Whatever it is given is restored, by the release always, by branch main in some of its editors. The release
        # means "keep the edit" by keep_original_weight=False; branch main passes False always.
        keeps = call.keeps if call is not None else host.generation == "release" and not keep_original_weight
        if keeps and isinstance(original, OriginalWeights):
            original = original.kept()
        elif keeps and (host.generation == "release" or call is not None):
            original = {}  # MEMIT-delete gives what the host's own MEMIT does
        return model, original

    setattr(apply, OURS, True)
    return apply


def _allow_batches(batch_editor: Any) -> None:
    """Adds our names to the host's hard-coded list of methods that take many requests at once."""
    hosts_own = batch_editor.is_batchable_method
    if hasattr(hosts_own, OURS):
        return

    def is_batchable_method(alg_name: str) -> bool:
        return alg_name in REGISTERED or bool(hosts_own(alg_name))

    setattr(is_batchable_method, OURS, True)
    batch_editor.is_batchable_method = staticmethod(is_batchable_method)


def _wrap_editors(host: Host) -> None:
    """Wraps what the host's editors do with requests; one generation has editors that the other lacks."""
    for name, (editor_name, entry_points) in EDITORS_OF_HOST.items():
        if not host.has(name):
            continue
        module = host.module(name)
        editor = getattr(module, editor_name)
        for entry_point in entry_points:
            _wrap(editor, entry_point, functools.partial(keeping_all, generation=host.generation))
        # A method of the editor, or a function of its module.
        for place in (editor, module):
            _wrap(place, "_prepare_requests", taking_forget)


def _wrap(place: Any, name: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    function = vars(place).get(name)
    if function is not None and not hasattr(function, OURS):
        setattr(place, name, wrapper(function))
