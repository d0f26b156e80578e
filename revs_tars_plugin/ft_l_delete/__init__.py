"""FT-L-delete: the fine-tuning that REVS is compared with."""

from .ft_l_delete_hparams import FTLDeleteHyperParams
from .ft_l_delete_main import apply_ft_l_delete_to_model, execute_ft_l_delete

__all__ = ["FTLDeleteHyperParams", "apply_ft_l_delete_to_model", "execute_ft_l_delete"]
