"""Running a script of the host's unchanged, with our methods where it chooses among its own.

Such scripts choose by the method's name, in chains of `if`, in dictionaries and in lists. Before one is run, it gets a
branch, an entry or an item for each of our methods beside MEMIT's, which edits many requests at once as ours do. The
file itself stays as it is.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch

from ..errors import InputError
from .host_call import Defaults, defaults_of_calls
from .registry import REGISTERED, register
from .release_bridge import CudaToCpu

# Whose treatment in a script ours get, and the class of its settings.
_MODEL, _MODEL_SETTINGS = "MEMIT", "MEMITHyperParams"

Node = TypeVar("Node", bound=ast.AST)


def run_script(script: Path, arguments: Sequence[str], *, forget: str | None = None, keep: bool = False) -> None:
    """Runs a script that uses EasyEdit as Python would, with our methods among those that it knows.

    Args:
        script: The script; where it says "cuda" and there is none, the CPU is taken.
        arguments: What stands behind it on the command line.
        forget: Which field of the script's own JSON records holds what is forgotten, such as `ground_truth`; by default
            it is for the requests and the settings to say.
        keep: Let edits stay where the script does not say `sequential_edit`.

    Raises:
        InputError: When it is no Python file, or is asked for one of our methods but has no place for them.
    """
    try:
        source = script.read_bytes()
        tree = ast.parse(source, str(script))
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{script} cannot be read as a Python script: {error}") from error
    register()
    places = _OurMethods()
    tree = ast.fix_missing_locations(places.visit(tree))
    mentioned = any(name in source.decode("utf-8", "replace") for name in REGISTERED)
    named = [name for name in REGISTERED if any(name in argument.split("=") for argument in arguments)]
    if named and not places.found and not mentioned:
        raise InputError(
            f"{script} has no place where it chooses {_MODEL} among its methods, so {named[0]} has none beside it; "
            f"add a branch with {REGISTERED[named[0]].hyperparams.__name__} to a copy of it."
        )
    records = _Records(forget) if forget is not None else None
    module = ModuleType("__main__")
    vars(module).update(_settings_classes(), __file__=str(script))
    with contextlib.ExitStack() as stack:
        stack.enter_context(_as_python_starts_it(module, script, arguments))
        stack.enter_context(defaults_of_calls(Defaults(keeps=keep, forget=records.texts if records else None)))
        if records is not None:
            stack.enter_context(records.reading())
        if not torch.cuda.is_available():
            stack.enter_context(CudaToCpu())
        exec(compile(tree, str(script), "exec"), vars(module))


def _settings_classes() -> dict[str, Any]:
    return {method.hyperparams.__name__: method.hyperparams for method in REGISTERED.values()}


@contextlib.contextmanager
def _as_python_starts_it(module: ModuleType, script: Path, arguments: Sequence[str]) -> Iterator[None]:
    kept = sys.argv, sys.path[:], sys.modules["__main__"]
    sys.modules["__main__"] = module
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.resolve().parent))
    try:
        yield
    finally:
        sys.argv, sys.path[:], sys.modules["__main__"] = kept


class _OurMethods(ast.NodeTransformer):
    """Puts our methods wherever a script names MEMIT.

    Attributes:
        found: Whether there was such a place.
    """

    def __init__(self) -> None:
        self.found = False

    def visit_If(self, node: ast.If) -> ast.If:
        """Adds branches in front of `if ... == "MEMIT"`."""
        self.generic_visit(node)
        test = node.test
        if not (
            isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Eq) and _names_model(test.comparators[0])
        ):
            return node
        self.found = True
        chain = node
        for name in REGISTERED:
            branch = ast.If(test=_for(name, test), body=[_for(name, line) for line in node.body], orelse=[chain])
            chain = ast.copy_location(branch, node)
        return chain

    def visit_Dict(self, node: ast.Dict) -> ast.Dict:
        """Adds entries beside `"MEMIT": ...`."""
        self.generic_visit(node)
        for key, value in list(zip(node.keys, node.values, strict=True)):
            if key is not None and _names_model(key):
                self.found = True
                node.keys += [ast.copy_location(ast.Constant(name), key) for name in REGISTERED]
                node.values += [_for(name, value) for name in REGISTERED]
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.Compare:
        """Adds items to `... in ["MEMIT", ...]`."""
        self.generic_visit(node)
        for choices in node.comparators:
            if isinstance(choices, ast.List | ast.Tuple | ast.Set) and any(map(_names_model, choices.elts)):
                choices.elts += [ast.copy_location(ast.Constant(name), choices) for name in REGISTERED]
        return node


def _names_model(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value == _MODEL


def _for(name: str, node: Node) -> Node:
    """A copy of a part of the script with one of our methods in MEMIT's place."""
    node = copy.deepcopy(node)
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and part.value == _MODEL:
            part.value = name
        elif isinstance(part, ast.Name) and part.id == _MODEL_SETTINGS:
            part.id = REGISTERED[name].hyperparams.__name__
    return node


class _Records:
    """The records that a script reads from JSON, looked through for what a prompt's record says in one field."""

    def __init__(self, field: str) -> None:
        self._field = field
        self._records: list[Mapping[str, Any]] = []

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Remembers what `json.load` reads while a `with` block lasts."""
        load = json.load

        def read(*args: Any, **kwargs: Any) -> Any:
            value = load(*args, **kwargs)
            self._records += _with_field(value, self._field)
            return value

        json.load = read
        try:
            yield
        finally:
            json.load = load

    def texts(self, prompt: str) -> Any:
        """Returns what the field says in the record of a prompt: one that has the prompt, or the question in it.

        Raises:
            InputError: When no record has both.
        """
        best, length = None, 0
        for record in self._records:
            for key, value in record.items():
                if key != self._field and isinstance(value, str) and len(value) > length and value in prompt:
                    best, length = record, len(value)
        # A subject or an answer may stand in the prompt too; a question is most of it.
        if best is None or 2 * length < len(prompt):
            raise InputError(
                f'--forget says "{self._field}", but no record that the script reads has that field beside one of its '
                "prompts; name another field, or set forget_field in the settings."
            )
        return best[self._field]


def _with_field(value: Any, field: str) -> list[Mapping[str, Any]]:
    if isinstance(value, dict):
        return [
            *([value] if field in value else []),
            *(row for item in value.values() for row in _with_field(item, field)),
        ]
    return [row for item in value for row in _with_field(item, field)] if isinstance(value, list) else []
