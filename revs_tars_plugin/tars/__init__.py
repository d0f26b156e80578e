"""TARS, in the shape of the host's methods."""

from .outcomes import ConceptOutcome
from .tars_hparams import TARSHyperParams
from .tars_main import apply_tars_to_model, execute_tars

__all__ = ["ConceptOutcome", "TARSHyperParams", "apply_tars_to_model", "execute_tars"]
