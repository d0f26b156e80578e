"""REVS, in the shape of the host's methods."""

from .outcomes import TargetOutcome
from .revs_hparams import REVSHyperParams
from .revs_main import apply_revs_to_model, execute_revs

__all__ = ["REVSHyperParams", "TargetOutcome", "apply_revs_to_model", "execute_revs"]
