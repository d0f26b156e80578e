"""The editors that can be run side by side in EasyEdit: our methods and the host's own that write weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..hyperparams import packaged_hparams
from ..methods import METHODS
from .registry import MEMIT_DELETE


@dataclass(frozen=True)
class Editor:
    """One `alg_name`.

    Attributes:
        settings: The packaged YAML for the demo model.
        memory: Whether it keeps what it writes beside the weights, and leaves these alone.
        full: Whether it is left out unless all are asked for: for the time it takes, or as a variant of another.
    """

    settings: Path
    memory: bool = False
    full: bool = False


def _packaged(name: str, **group: bool) -> Editor:
    return Editor(packaged_hparams(name) / "smollm2-135m.yaml", **group)


# Published methods first, what they compare with last.
EDITORS: Mapping[str, Editor] = {
    **{name: Editor(method.best_file) for name, method in METHODS.items() if method.paper is not None},
    "FT": _packaged("FT"),
    "LoRA": _packaged("LoRA"),
    "ROME": _packaged("ROME"),
    "R-ROME": _packaged("R-ROME", full=True),
    "MEMIT": _packaged("MEMIT"),
    "EMMET": _packaged("EMMET", full=True),
    "AlphaEdit": _packaged("AlphaEdit"),
    "ULTRAEDIT": _packaged("ULTRAEDIT"),
    **{name: Editor(method.best_file) for name, method in METHODS.items() if method.paper is None},
    MEMIT_DELETE.name: Editor(MEMIT_DELETE.best_file),
    "GRACE": _packaged("GRACE", memory=True),
    "WISE": _packaged("WISE", memory=True, full=True),
}


# What is compared unless all are asked for.
USUAL = tuple(name for name, editor in EDITORS.items() if not editor.full)


def editor_of(name: str) -> Editor:
    """Returns what is known of an `alg_name`; of one that is not in the table no more than where its YAML would be."""
    return EDITORS.get(name) or _packaged(name)
