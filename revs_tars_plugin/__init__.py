"""REVS and TARS unlearning for EasyEdit: forget secrets and concepts by editing weights, without training."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .edits.edit_set import EditSet
    from .errors import EditConflictError, HostError, InputError
    from .host import register
    from .host.unlearn_editor import UnlearnEditor
    from .revs import REVSHyperParams, apply_revs_to_model, execute_revs
    from .tars import TARSHyperParams, apply_tars_to_model, execute_tars

__all__ = [
    "EditConflictError",
    "EditSet",
    "HostError",
    "InputError",
    "REVSHyperParams",
    "TARSHyperParams",
    "UnlearnEditor",
    "apply_revs_to_model",
    "apply_tars_to_model",
    "execute_revs",
    "execute_tars",
    "register",
]

# Imported when first asked for: torch takes seconds, which `revs-tars --help` and shell completion should not, and the
# base class of `UnlearnEditor` is the host's.
_HOMES = {
    **dict.fromkeys(("EditConflictError", "HostError", "InputError"), "errors"),
    **dict.fromkeys(("REVSHyperParams", "apply_revs_to_model", "execute_revs"), "revs"),
    **dict.fromkeys(("TARSHyperParams", "apply_tars_to_model", "execute_tars"), "tars"),
    "EditSet": "edits.edit_set",
    "UnlearnEditor": "host.unlearn_editor",
    "register": "host",
}


def __getattr__(name: str) -> Any:
    """Imports a public name from where it lives."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    """Lists the public names, imported or not."""
    return sorted({*globals(), *__all__})
