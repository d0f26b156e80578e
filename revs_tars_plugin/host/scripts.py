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
    text = source.decode("utf-8", "replace")
    places = _OurMethods(text)
    tree = ast.fix_missing_locations(places.visit(tree))
    mentioned = any(name in text for name in REGISTERED)
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

    def __init__(self, source: str) -> None:
        self.found = False
        # What the script knows by itself stays as it is.
        self._missing = [name for name in REGISTERED if f"'{name}'" not in source and f'"{name}"' not in source]

    def visit_If(self, node: ast.If) -> ast.If:
        """Adds branches in front of `if ... == "MEMIT"`."""
        self.generic_visit(node)
        chain = node
        for name in self._missing if _asks_for_model(node.test) else ():
            branch = ast.If(test=_for(name, node.test), body=[_for(name, line) for line in node.body], orelse=[chain])
            chain = ast.copy_location(branch, node)
            self.found = True
        return chain

    def visit_IfExp(self, node: ast.IfExp) -> ast.IfExp:
        """Adds cases in front of `... if ... == "MEMIT" else ...`."""
        self.generic_visit(node)
        chain = node
        for name in self._missing if _asks_for_model(node.test) else ():
            chain = ast.copy_location(ast.IfExp(_for(name, node.test), _for(name, node.body), chain), node)
            self.found = True
        return chain

    def visit_Dict(self, node: ast.Dict) -> ast.Dict:
        """Adds entries beside `"MEMIT": ...`."""
        self.generic_visit(node)
        for key, value in list(zip(node.keys, node.values, strict=True)):
            if key is not None and _names_model(key):
                self.found = True
                node.keys += [ast.copy_location(ast.Constant(name), key) for name in self._missing]
                node.values += [_for(name, value) for name in self._missing]
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.Compare:
        """Adds items to `... in ["MEMIT", ...]`."""
        self.generic_visit(node)
        for operator, choices in zip(node.ops, node.comparators, strict=True):
            if isinstance(operator, ast.In | ast.NotIn):
                self._extend(choices)
        return node

    def visit_keyword(self, node: ast.keyword) -> ast.keyword:
        """Adds items to `choices=["MEMIT", ...]`, as argparse has them."""
        self.generic_visit(node)
        if node.arg == "choices":
            self._extend(node.value)
        return node

    def _extend(self, choices: ast.expr) -> None:
        if isinstance(choices, ast.List | ast.Tuple | ast.Set) and any(map(_names_model, choices.elts)):
            choices.elts += [ast.copy_location(ast.Constant(name), choices) for name in self._missing]


def _asks_for_model(test: ast.expr) -> bool:
    """Whether a condition holds for MEMIT alone: `x == "MEMIT"`, either way round, or with more beside it."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return any(map(_asks_for_model, test.values))
    if not (isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq)):
        return False
    return _names_model(test.left) or _names_model(test.comparators[0])


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
        elif isinstance(part, ast.Attribute) and part.attr == _MODEL_SETTINGS:
            part.attr = REGISTERED[name].hyperparams.__name__
    return node


class _Records:
    """The records that a script reads from JSON, looked through for what a request's record says in one field."""

    def __init__(self, field: str) -> None:
        self._field = field
        self._records: list[Mapping[str, Any]] = []

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Remembers what `json.load` reads while a `with` block lasts."""
        load = json.load

        def read(*args: Any, **kwargs: Any) -> Any:
            value = load(*args, **kwargs)
            self._records += _top_records(value)
            return value

        json.load = read
        try:
            yield
        finally:
            json.load = load

    def texts(self, request: Mapping[str, Any]) -> Any:
        """Returns what the field says in the record of a request, found by its prompt, or by the question in it.

        Raises:
            InputError: When there is no such record, it lacks the field, or several say different things.
        """
        prompt, new = request["prompt"], request.get("target_new")
        records = [record for record in self._records if prompt in record.values()]
        if not records:
            lengths = [_longest_in(record, prompt) for record in self._records]
            # A subject or an answer may stand in the prompt too; a question is most of it.
            wanted = max([*lengths, (len(prompt) + 1) // 2])
            records = [record for record, length in zip(self._records, lengths, strict=True) if length == wanted]
        same_answer = [record for record in records if new in record.values()]
        answers = [record[self._field] for record in same_answer or records if self._field in record]
        if not answers or any(answer != answers[0] for answer in answers):
            what = (
                "several records of one of its prompts say different things"
                if answers
                else "no record that the script reads has that field beside one of its prompts"
            )
            raise InputError(
                f'--forget says "{self._field}", but {what}; name another field, or set forget_field in the settings.'
            )
        return answers[0]


def _longest_in(record: Mapping[str, Any], prompt: str) -> int:
    return max((len(value) for value in record.values() if isinstance(value, str) and value in prompt), default=0)


def _top_records(value: Any) -> list[Mapping[str, Any]]:
    """The records of a file: a list's, or those of the lists in a dictionary; not what they hold themselves."""
    if isinstance(value, dict):
        return [record for item in value.values() if isinstance(item, list) for record in _top_records(item)]
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
