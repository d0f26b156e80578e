"""REVS and TARS unlearning for EasyEdit: forget secrets and concepts by editing weights, without training."""

from typing import Any

from .edits import EditSet
from .errors import EditConflictError, HostError, InputError
from .host import register
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


def __getattr__(name: str) -> Any:
    """Gives `UnlearnEditor` when it is first asked for: its base class is the host's, which is imported then."""
    if name == "UnlearnEditor":
        from .host.unlearn_editor import UnlearnEditor

        return UnlearnEditor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
