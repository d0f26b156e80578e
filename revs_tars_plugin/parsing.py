"""YAML and JSON from files that anybody may have written: what cannot be read is one sentence."""

from __future__ import annotations

import json
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
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as YAML: {_one_line(error)}") from error
    return parsed_yaml(text, str(path))


def parsed_yaml(text: str, name: str) -> Any:
    """Returns what a YAML text holds; nothing in it is executed.

    Raises:
        InputError: Calling the text by its name, when it is none.
    """
    try:
        return yaml.safe_load(text)
    # Dates that there are not, and lists in lists in lists, are no errors of the library's own kind.
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{name} cannot be read as YAML: {_one_line(error)}") from error


def parsed_json(text: str, name: str, first_line: int = 1) -> Any:
    """Returns what a JSON text holds.

    Args:
        text: The text.
        name: What it is called.
        first_line: The number of its first line in the file.

    Raises:
        InputError: Naming line and column, when it is none.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line - 1 + error.lineno
        raise InputError(f"{name}, line {line}, column {error.colno}: not JSON ({error.msg}).") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}, line {first_line}: not JSON that can be read ({_one_line(error)}).") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
