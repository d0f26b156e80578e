"""MEMIT-delete: the host's MEMIT, writing a value that lowers what must be forgotten."""

from .memit_delete_hparams import MEMITDeleteHyperParams
from .memit_delete_main import apply_memit_delete_to_model

__all__ = ["MEMITDeleteHyperParams", "apply_memit_delete_to_model"]
