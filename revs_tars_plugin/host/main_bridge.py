"""What EasyEdit's branch main needs on libraries that are newer than its pins; on these it needs none of it."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

from .release_bridge import gone

# transformers 5.24 dropped this module; two editors of the host (UnKE, UnKE-ARE) import names from it, so that nothing
# of the host could be imported without it. They alone use them, on hidden states that they run layer by layer.
DROPPED_MODULE = "transformers.modeling_attn_mask_utils"
STANDS_IN = "put in its place by revs-tars-plugin"
DROPPED_NAMES = ("AttentionMaskConverter", "_prepare_4d_causal_attention_mask")


def restore_mask_module() -> None:
    """Puts a module in the dropped one's place whose names say that they are gone; what is there stays."""
    if DROPPED_MODULE in sys.modules or find_spec(DROPPED_MODULE) is not None:
        return
    module = ModuleType(DROPPED_MODULE, "Names that transformers dropped; each says so when it is called.")
    # Whoever else looks for the module is told that there is one, not that something is broken.
    module.__spec__ = ModuleSpec(DROPPED_MODULE, loader=None, origin=STANDS_IN)
    for name in DROPPED_NAMES:
        setattr(module, name, gone(name, "EasyEdit's UnKE needs transformers 5.23 or older"))
    sys.modules[DROPPED_MODULE] = module
