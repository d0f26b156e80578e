"""REVS and TARS unlearning for EasyEdit: forget secrets and concepts by editing weights, without training."""

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
    "apply_revs_to_model",
    "apply_tars_to_model",
    "execute_revs",
    "execute_tars",
    "register",
]
