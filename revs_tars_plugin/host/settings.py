"""Loading the settings of any method that the host knows, from YAML, on either generation."""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..yaml_files import read_yaml
from .easyedit import Host
from .host_methods import settings_class
from .registry import REGISTERED


def load_settings(host: Host, alg_name: str, path: str | Path) -> Any:
    """Returns a method's settings from a YAML file that may serve both generations of the host.

    The host's own classes refuse keys that they do not know, and some are known to one generation alone; these are left
    out here. "~" in `model_name` and `stats_dir` is expanded.

    Args:
        host: Whose methods.
        alg_name: As in the host's table of algorithms.
        path: The file.

    Raises:
        InputError: When the file cannot be used, or is for another method.
    """
    if alg_name in REGISTERED:
        return REGISTERED[alg_name].hyperparams.from_hparams(path)
    kind = settings_class(host, alg_name)
    if kind is None:
        raise InputError(
            f"EasyEdit has no settings class for {alg_name}; only its weight-editing methods can be compared."
        )
    file = Path(path).expanduser()
    config = read_yaml(file)
    if not isinstance(config, dict) or config.get("alg_name") != alg_name:
        raise InputError(f'{file} is no settings file of {alg_name}; its alg_name must say "{alg_name}".')
    known = {item.name: item for item in fields(kind)}
    for name, item in known.items():
        if name not in config and item.default is MISSING and item.default_factory is MISSING:
            raise InputError(f'{file}: the key "{name}" is missing; add it.')
    return kind(**{name: _value(name, value) for name, value in config.items() if name in known})


def _value(name: str, value: Any) -> Any:
    if name in ("model_name", "stats_dir") and isinstance(value, str):
        return str(Path(value).expanduser()) if value.startswith("~") else value
    if isinstance(value, str):
        try:
            return float(value)  # YAML reads 5e-4 as text
        except ValueError:
            return value
    return value
