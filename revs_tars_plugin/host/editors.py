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
        needs_subject: Whether it looks things up where the subject ends; it counts tokens from the left, then.
        hosts_moments: Whether it reads second moments by the host's own names for their files.
    """

    settings: Path
    needs_subject: bool = False
    hosts_moments: bool = False


def _packaged(name: str, **reads: bool) -> Editor:
    return Editor(packaged_hparams(name) / "smollm2-135m.yaml", **reads)


# Published methods first, what they compare with last.
EDITORS: Mapping[str, Editor] = {
    **{name: Editor(method.best_file) for name, method in METHODS.items() if method.paper is not None},
    "FT": _packaged("FT"),
    "ROME": _packaged("ROME", needs_subject=True),
    "MEMIT": _packaged("MEMIT", needs_subject=True, hosts_moments=True),
    **{name: Editor(method.best_file) for name, method in METHODS.items() if method.paper is None},
    MEMIT_DELETE.name: Editor(MEMIT_DELETE.best_file, needs_subject=True, hosts_moments=True),
}


def editor_of(name: str) -> Editor:
    """Returns what is known of an `alg_name`; of one that is not in the table no more than where its YAML would be."""
    return EDITORS.get(name) or _packaged(name)
