"""YAML that anybody may have written: what cannot be read is one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .errors import InputError


def read_yaml(path: Path) -> Any:
    """Returns what a YAML file holds.

    Raises:
        InputError: Naming the file, when it cannot be read.
    """
    try:
        return parsed_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from error


def parsed_yaml(text: str, name: str) -> Any:
    """Returns what a YAML text holds; nothing in it is executed.

    Raises:
        InputError: Calling the text by its name, when it is none.
    """
    try:
        return yaml.safe_load(text)
    # Dates that there are not, and lists in lists in lists, are no errors of the library's own kind.
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{name} cannot be read as YAML: {' '.join(str(error).split())}") from error
