"""Finding and importing EasyEdit, whichever of its two generations is installed."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from ..errors import HostError
from . import main_bridge, release_bridge

Generation = Literal["release", "main"]

_WAYS_TO_INSTALL = (
    "Either install the release: pip install 'revs-tars-plugin[host]' && pip install --no-deps easyeditor==0.0.1.dev0; "
    "or clone https://github.com/zjunlp/EasyEdit, install what its requirements.txt names, and put the clone on "
    "PYTHONPATH (or name it in EASYEDIT_HOME)."
)


@dataclass(frozen=True)
class Host:
    """The imported EasyEdit.

    Attributes:
        package: The module `easyeditor`.
        generation: `release` (PyPI, 2023) or `main` (the repository).
    """

    package: ModuleType
    generation: Generation

    def module(self, name: str) -> ModuleType:
        """Returns one of the host's modules by its dotted name below `easyeditor`."""
        return importlib.import_module(f"easyeditor.{name}")

    @property
    def algorithms(self) -> dict[str, Any]:
        """The host's table of methods: by `alg_name` the function that applies one."""
        table: dict[str, Any] = self.module("util.alg_dict").ALG_DICT
        return table

    def has(self, name: str) -> bool:
        """Says whether this generation has such a module."""
        return find_spec(f"easyeditor.{name}") is not None


def load_host() -> Host:
    """Imports EasyEdit, bridging what it needs on current libraries.

    Raises:
        HostError: When it is not installed or cannot be imported; says why, and the two ways to install it.
    """
    spec = _locate()
    generation = _generation(spec)
    if generation == "release":
        release_bridge.restore_transformers_names()
    else:
        main_bridge.restore_mask_module()
    try:
        package = importlib.import_module("easyeditor")
    except ImportError as error:
        raise HostError(f"EasyEdit ({generation}) cannot be imported: {error}. {_WAYS_TO_INSTALL}") from error
    host = Host(package=package, generation=generation)
    if generation == "release":
        release_bridge.run_without_cuda(host.module("editors.editor").BaseEditor)
        release_bridge.layers_as_tuples(host.module("models.memit.compute_z"))
    return host


def _locate() -> ModuleSpec:
    home = os.environ.get("EASYEDIT_HOME")
    if home and "easyeditor" not in sys.modules:
        if not (Path(home) / "easyeditor" / "__init__.py").is_file():
            raise HostError(f'EASYEDIT_HOME is "{home}", but there is no EasyEdit clone in it.')
        if home not in sys.path:
            sys.path.insert(0, home)
    spec = find_spec("easyeditor")
    if spec is None or spec.origin is None:
        raise HostError(f"EasyEdit is not installed. {_WAYS_TO_INSTALL}")
    return spec


def _generation(spec: ModuleSpec) -> Generation:
    # Only branch main has the shared helpers of its editors, restore_after_edit among them.
    assert spec.origin is not None
    return "main" if (Path(spec.origin).parent / "editors" / "utils.py").is_file() else "release"
