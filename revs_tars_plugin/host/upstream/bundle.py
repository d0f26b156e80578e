"""Our modules as a few files that need nothing of this package: merged by room, without what no method reaches."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_SHAPED = re.compile(r'\b(?:Float|Int|Bool)\[Tensor, "[^"]*"\]')


@dataclass
class _Part:
    """One top-level statement of a module.

    Attributes:
        text: Its lines, with the comments above it.
        defines: The names that it defines.
        uses: The names that it reads.
    """

    text: str
    defines: frozenset[str]
    uses: frozenset[str]


@dataclass
class _Bundle:
    """A file that is being made.

    Attributes:
        parts: Its statements, in an order in which they can be run.
        external: What it imports from other libraries: module -> names, none for the module itself.
        internal: Where the names come from that it imports from other bundles: name -> bundle.
    """

    parts: list[_Part] = field(default_factory=list)
    external: dict[str, set[str]] = field(default_factory=dict)
    internal: dict[str, str] = field(default_factory=dict)


def bundles(
    package: Path,
    members: Mapping[str, Sequence[str]],
    roots: Mapping[str, Iterable[str]],
    replaced: Iterable[str],
    written: str,
) -> dict[str, str]:
    """Merges modules into files.

    Args:
        package: The folder of the package that the modules belong to.
        members: For each file's path, with slashes and without its ending, the dotted names of its modules. A file
            without modules is written by hand; others may import from it.
        roots: For each file the names that have to be there; with them comes what they need, from whatever file.
        replaced: Modules in whose place such a file stands, as for `edits.trial` the one whose path ends in `edits`.
        written: The text of what is written by hand; methods that it calls stay.

    Returns:
        For each file that has modules its text.
    """
    homes = {module: path for path, modules in members.items() for module in modules}
    for module in replaced:
        by_hand = (path for path, modules in members.items() if not modules)
        homes[module] = next(path for path in by_hand if path.rpartition("/")[2] in module.split("."))
    made = {path: _merged(package, path, modules, homes) for path, modules in members.items() if modules}
    kept = _reached(made, roots)
    texts = {path: _written(path, bundle, kept[path], homes) for path, bundle in made.items()}
    return _without_dead_methods(texts, written)


def _merged(package: Path, path: str, modules: Sequence[str], homes: Mapping[str, str]) -> _Bundle:
    bundle, taken = _Bundle(), dict[str, str]()
    for module in _in_order(package, modules):
        text = _SHAPED.sub("Tensor", (package / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
        text = _renamed(text, module, taken)
        lines, tree = text.splitlines(), ast.parse(text)
        end = 0
        for node in tree.body:
            start, end = end, node.end_lineno or 0
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                for inner in node.body:
                    _note_import(bundle, inner, module, path, homes)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                _note_import(bundle, node, module, path, homes)
            elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
                part = _Part("\n".join(lines[start:end]).strip("\n"), _defined(node), _used(node))
                if part.text not in {other.text for other in bundle.parts}:
                    bundle.parts.append(part)
                taken.update(dict.fromkeys(part.defines, part.text))
    return bundle


def _in_order(package: Path, modules: Sequence[str]) -> list[str]:
    """Modules so that each stands behind those that it imports from."""
    ordered: list[str] = []

    def add(module: str) -> None:
        if module in ordered:
            return
        tree = ast.parse((package / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and _absolute(node, module) in modules:
                add(_absolute(node, module))
        ordered.append(module)

    for module in modules:
        add(module)
    return ordered


def _absolute(node: ast.ImportFrom, module: str) -> str:
    """The dotted name, below the package, of the module that an import names."""
    if not node.level:
        return ""
    parents = module.split(".")[: -node.level]
    return ".".join([*parents, *([node.module] if node.module else [])])


def _note_import(bundle: _Bundle, node: ast.stmt, module: str, path: str, homes: Mapping[str, str]) -> None:
    if isinstance(node, ast.Import):
        for alias in node.names:
            bundle.external.setdefault(f"import {ast.unparse(alias)}", set())
    elif isinstance(node, ast.ImportFrom) and node.level:
        home = homes[_absolute(node, module)]
        if home != path:
            bundle.internal.update(dict.fromkeys((alias.name for alias in node.names), home))
    elif isinstance(node, ast.ImportFrom) and node.module not in ("__future__", "jaxtyping"):
        names = {ast.unparse(alias) for alias in node.names} - {"TYPE_CHECKING"}
        bundle.external.setdefault(node.module or "", set()).update(names)


def _renamed(text: str, module: str, taken: Mapping[str, str]) -> str:
    """A module's text in which private names that another one took have its own name behind them."""
    for node in ast.parse(text).body:
        for name in _defined(node):
            if name in taken and taken[name] != ast.get_source_segment(text, node) and name.startswith("_"):
                text = re.sub(rf"(?<![\w.]){name}\b", f"{name}_of_{module.rpartition('.')[2]}", text)
    return text


def _defined(node: ast.stmt) -> frozenset[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return frozenset({node.name})
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return frozenset(name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))


def _used(node: ast.AST) -> frozenset[str]:
    """Names that are read; those in quoted annotations as well."""
    names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value.isidentifier():
            names.add(part.value)
        elif isinstance(part, ast.ImportFrom) and part.level:
            names |= {alias.name for alias in part.names}
    return frozenset(names)


def _reached(made: Mapping[str, _Bundle], roots: Mapping[str, Iterable[str]]) -> dict[str, list[_Part]]:
    """What is needed of each bundle, starting from the roots."""
    kept: dict[str, list[_Part]] = {path: [] for path in made}
    todo = [(path, name) for path, names in roots.items() for name in names]
    while todo:
        path, name = todo.pop()
        if path not in made:
            continue
        bundle = made[path]
        for part in bundle.parts:
            if name in part.defines and part not in kept[path]:
                kept[path].append(part)
                todo += [(path, used) for used in part.uses]
        if name in bundle.internal:
            todo.append((bundle.internal[name], name))
    return kept


def _written(path: str, bundle: _Bundle, kept: Sequence[_Part], homes: Mapping[str, str]) -> str:
    parts = [part for part in bundle.parts if part in kept]
    used = frozenset(name for part in parts for name in part.uses)
    imports = []
    for module, names in sorted(bundle.external.items()):
        if module.startswith("import "):
            if module.split()[-1].split(".")[0] in used:
                imports.append(module)
            continue
        wanted = sorted(name for name in names if name.split()[-1] in used)
        if wanted:
            imports.append(f"from {module} import {', '.join(wanted)}")
    by_home: dict[str, list[str]] = {}
    for name, home in bundle.internal.items():
        if name in used:
            by_home.setdefault(home, []).append(name)
    imports.sort(key=lambda line: (not line.startswith("import"), line))
    imports += [f"from {_relative(path, home)} import {', '.join(sorted(names))}" for home, names in by_home.items()]
    bodies = [_summarised(_with_relative_imports(part.text, path, homes)) for part in parts]
    return "from __future__ import annotations\n\n" + "\n".join(imports) + "\n\n\n" + "\n\n\n".join(bodies) + "\n"


def _with_relative_imports(text: str, path: str, homes: Mapping[str, str]) -> str:
    """A statement's text whose own imports, within functions, lead to the bundles."""

    def moved(match: re.Match[str]) -> str:
        indent, module, names = match.groups()
        home = next((place for name, place in homes.items() if name.endswith(module)), None)
        if home is None or home == path:
            return ""
        return f"{indent}from {_relative(path, home)} import {names}\n"

    return re.sub(r"^( +)from \.+([\w.]+) import (.+)\n", moved, text, flags=re.M)


def _without_dead_methods(texts: Mapping[str, str], written: str) -> dict[str, str]:
    """The files without methods that nothing names."""
    texts, before = dict(texts), None
    while texts != before:
        before = dict(texts)
        everything = "\n".join([*texts.values(), written])
        named = set(re.findall(r"\.(\w+)", everything)) | set(re.findall(r"['\"](\w+)['\"]", everything))
        for path, text in texts.items():
            lines = text.splitlines()
            for kind in reversed([node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]):
                for node in reversed(kind.body):
                    if isinstance(node, ast.FunctionDef) and not node.name.startswith("__") and node.name not in named:
                        start = min([node.lineno, *(mark.lineno for mark in node.decorator_list)])
                        del lines[start - 1 : node.end_lineno]
            texts[path] = re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines) + "\n")
    return texts


def _summarised(text: str) -> str:
    """A statement's text whose docstrings end after their first paragraph, as the host's do; settings keep theirs."""
    lines = text.splitlines()
    tree = ast.parse(text)
    documented = (ast.FunctionDef, ast.ClassDef)
    nodes = [node for node in ast.walk(tree) if isinstance(node, documented) and ast.get_docstring(node)]
    for node in sorted(nodes, key=lambda node: -node.lineno):
        first = node.body[0]
        paragraph = (ast.get_docstring(node, clean=False) or "").split("\n\n")[0].rstrip()
        if (first.end_lineno or 0) > first.lineno and not node.name.endswith("HyperParams"):
            indent = " " * first.col_offset
            lines[first.lineno - 1 : first.end_lineno] = f'{indent}"""{paragraph}"""'.splitlines()
    return "\n".join(lines)


def _relative(path: str, home: str) -> str:
    """How one file names another: both stand in folders beside each other."""
    folder, _, name = home.rpartition("/")
    return f".{name}" if path.rpartition("/")[0] == folder else f"..{folder}.{name}"
