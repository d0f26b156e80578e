"""REVS and TARS unlearning for EasyEdit: forget secrets and concepts by editing weights, without training."""

from .edits import EditSet
from .errors import EditConflictError, HostError, InputError
from .host import register
from .revs import REVSHyperParams, apply_revs_to_model, execute_revs

__all__ = [
    "EditConflictError",
    "EditSet",
    "HostError",
    "InputError",
    "REVSHyperParams",
    "apply_revs_to_model",
    "execute_revs",
    "register",
]
