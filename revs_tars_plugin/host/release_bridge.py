"""What EasyEdit's release of 2023 needs on libraries of today; branch main needs none of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import transformers.modeling_utils
import transformers.pytorch_utils
from torch.overrides import TorchFunctionMode

# Names that transformers 5 moved or dropped; the release's multimodal Q-Former imports them from their old place.
_MOVED_NAMES = ("apply_chunking_to_forward", "find_pruneable_heads_and_indices", "prune_linear_layer")
_BRIDGED = "_revs_tars_runs_without_cuda"
_ENTRY_POINTS = ("__init__", "edit", "batch_edit", "edit_dataset", "edit_requests")


def restore_transformers_names() -> None:
    """Puts the names back on `transformers.modeling_utils` that are no longer there; what is there stays."""
    for name in _MOVED_NAMES:
        if not hasattr(transformers.modeling_utils, name):
            found = getattr(transformers.pytorch_utils, name, None) or _gone(name)
            setattr(transformers.modeling_utils, name, found)


def run_without_cuda(base_editor: type) -> None:
    """Lets the release's `BaseEditor` work where no CUDA device exists; does nothing where one does, or done before."""
    if torch.cuda.is_available() or hasattr(base_editor, _BRIDGED):
        return
    for name in _ENTRY_POINTS:
        if name in vars(base_editor):
            setattr(base_editor, name, _on_cpu(vars(base_editor)[name]))
    setattr(base_editor, _BRIDGED, True)


class CudaToCpu(TorchFunctionMode):
    """While active, every CUDA device that is named to a torch function means the CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls the function with its devices replaced."""
        if func is torch.Tensor.cuda:
            return args[0].cpu()
        return func(*map(_cpu, args), **{key: _cpu(value) for key, value in (kwargs or {}).items()})


def _cpu(value: Any) -> Any:
    named = value.type if isinstance(value, torch.device) else value
    return torch.device("cpu") if isinstance(named, str) and named.split(":")[0] == "cuda" else value


def _on_cpu(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        for settings in (*args, *kwargs.values(), getattr(self, "hparams", None)):
            # The release writes f"cuda:{device}" itself, and "cuda:cpu" is no device; "cuda:0" is mapped to the CPU.
            if getattr(settings, "device", None) == "cpu" and hasattr(settings, "alg_name"):
                settings.device = 0
        with CudaToCpu():
            return method(self, *args, **kwargs)

    return run


def _gone(name: str) -> Callable[..., Any]:
    def missing(*_args: Any, **_kwargs: Any) -> Any:
        raise NotImplementedError(
            f"transformers no longer has {name}; EasyEdit's multimodal editors need an older one (4.30)."
        )

    return missing
