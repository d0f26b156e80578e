"""What EasyEdit's release of 2023 needs on libraries of today; branch main needs none of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import transformers.modeling_utils
import transformers.pytorch_utils
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Names that transformers 5 moved or dropped; the release's multimodal Q-Former imports them from their old place.
MOVED_NAMES = ("apply_chunking_to_forward", "find_pruneable_heads_and_indices", "prune_linear_layer")
_NEEDS = "EasyEdit's multimodal editors need an older one (4.30)"
_BRIDGED = "_revs_tars_runs_without_cuda"
_ENTRY_POINTS = ("__init__", "edit", "batch_edit", "edit_dataset", "edit_requests")


def restore_transformers_names() -> None:
    """Puts the names back on `transformers.modeling_utils` that are no longer there; what is there stays."""
    for name in MOVED_NAMES:
        if not hasattr(transformers.modeling_utils, name):
            function = getattr(transformers.pytorch_utils, name, None) or gone(name, _NEEDS)
            setattr(transformers.modeling_utils, name, function)


def run_without_cuda(base_editor: type) -> None:
    """Lets the release's `BaseEditor` work where no CUDA device exists; does nothing where one does, or done before."""
    if torch.cuda.is_available() or hasattr(base_editor, _BRIDGED):
        return
    for name in _ENTRY_POINTS:
        if name in vars(base_editor):
            setattr(base_editor, name, on_cpu(vars(base_editor)[name]))
    setattr(base_editor, _BRIDGED, True)


def layers_as_tuples(compute_z: ModuleType) -> None:
    """Lets the release's MEMIT search for its values where decoder layers return a tensor, as they do by now.

    It takes the first entry of what a layer returns. So what it traces shows a layer's tensor as a tuple of one.

    Args:
        compute_z: The host's module `models.memit.compute_z`.
    """
    nethook = compute_z.nethook
    if isinstance(nethook, _TracingInTuples):
        return
    compute_z.nethook = _TracingInTuples(nethook)  # type: ignore[attr-defined]


class _TracingInTuples:
    """The host's `nethook`, with traces that show tensors as tuples."""

    def __init__(self, nethook: ModuleType) -> None:
        self._nethook = nethook

    def __getattr__(self, name: str) -> Any:
        return getattr(self._nethook, name)

    def TraceDict(self, *, edit_output: Callable[..., Any], **kwargs: Any) -> Any:  # noqa: N802 (the host's name)
        """Makes a trace that calls `edit_output` with tuples and gives the layers what they expect."""

        def edit(output: Any, layer: str) -> Any:
            plain = isinstance(output, Tensor)
            edited = edit_output((output,) if plain else output, layer)
            return edited[0] if plain else edited

        class Traces(self._nethook.TraceDict):  # type: ignore[name-defined, misc]
            def __getitem__(self, name: str) -> Any:
                output = super().__getitem__(name).output
                return SimpleNamespace(output=(output,) if isinstance(output, Tensor) else output)

        return Traces(edit_output=edit, **kwargs)


class CudaToCpu(TorchFunctionMode):
    """While active, every CUDA device that is named to a torch function means the CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls the function with its devices replaced."""
        if func is torch.Tensor.cuda:
            return args[0].cpu()
        if func is torch.Tensor.to and len(args) > 1 and type(args[1]) is int:  # a CUDA device's number
            args = (args[0], "cpu", *args[2:])
        return func(*map(_cpu, args), **{key: _cpu(value) for key, value in (kwargs or {}).items()})


def _cpu(value: Any) -> Any:
    named = value.type if isinstance(value, torch.device) else value
    return torch.device("cpu") if isinstance(named, str) and named.split(":")[0] == "cuda" else value


def on_cpu(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a method of an editor so that the release's CUDA devices mean the CPU in it."""

    @functools.wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.cuda.is_available():
            return method(self, *args, **kwargs)
        for settings in (*args, *kwargs.values(), getattr(self, "hparams", None)):
            # The release writes f"cuda:{device}" itself, and "cuda:cpu" is no device; "cuda:0" is mapped to the CPU.
            if getattr(settings, "device", None) == "cpu" and hasattr(settings, "alg_name"):
                settings.device = 0
        with CudaToCpu():
            return method(self, *args, **kwargs)

    return run


def gone(name: str, who: str) -> Callable[..., Any]:
    """Returns what stands in for a function that transformers dropped: it says so when it is called.

    Args:
        name: The function's name.
        who: Who needs which version of transformers.
    """

    def missing(*_args: Any, **_kwargs: Any) -> Any:
        raise NotImplementedError(f"transformers no longer has {name}; {who}.")

    return missing
