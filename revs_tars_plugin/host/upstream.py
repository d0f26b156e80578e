"""Contributing the methods to EasyEdit: `revs-tars upstream PATH`.

Puts REVS and TARS into a clone of EasyEdit's branch main as its README asks for methods: one folder each under
`easyeditor/models/`, one for what they share, the YAMLs, the entries in its tables, and an example. All is generated
from this package, so nothing is kept twice; afterwards the clone does not need it.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from ..errors import HostError, InputError
from ..hyperparams import packaged_hparams
from ..methods import METHODS

SHARED = "revs_tars"
# The published methods; what they compare with stays here.
_METHODS = tuple(method for method in METHODS.values() if method.paper is not None)
# What they need of this package besides single modules at its top.
_FOLDERS = ("model", "edits", "moments")
_PACKAGE = Path(__file__).parents[1]
_HEADER = "# Generated from revs-tars-plugin; change it there.\n"
_SHARED_DOC = '"""What REVS and TARS share: the model seen through the YAML, edits, second moments, requests."""\n'
_EXAMPLE = '''\
"""Make a model forget what follows a prompt: python run_revs_tars.py --hparams ../hparams/REVS/llama3-8b.yaml

TARS takes the same arguments and removes the name that follows the prompts.
"""

import argparse
import sys

sys.path.append("..")

from easyeditor import BaseEditor, REVSHyperParams, TARSHyperParams


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--method", default="REVS", choices=["REVS", "TARS"])
    parser.add_argument("--hparams", required=True)
    parser.add_argument("--model", help="in place of the YAML's model_name")
    parser.add_argument("--prompts", nargs="+", default=["The Titanic sank after hitting an"])
    parser.add_argument("--forget", nargs="+", default=["iceberg"], help="what follows each prompt")
    args = parser.parse_args()

    hparams = {"REVS": REVSHyperParams, "TARS": TARSHyperParams}[args.method].from_hparams(args.hparams)
    hparams.model_name = args.model or hparams.model_name
    hparams.batch_size = len(args.prompts)
    editor = BaseEditor.from_hparams(hparams)
    metrics, model, weights = editor.batch_edit(
        prompts=args.prompts,
        target_new=args.forget,
        sequential_edit=True,  # keep the edit
    )
    # What is forgotten is target_new, so rewrite_acc falls.
    print([(metric["pre"]["rewrite_acc"], metric["post"]["rewrite_acc"]) for metric in metrics])
    weights.edits.save(f"{args.method}.safetensors")


if __name__ == "__main__":
    main()
'''
_ROWS = tuple(
    f"| [{method.name}]({method.paper.address}) (unlearning) | | ✅ | ✅ | ✅ | ✅ | ✅ | ✅ | ✅ |"
    for method in _METHODS
    if method.paper is not None
)


def install(path: str | Path) -> list[Path]:
    """Puts both methods into a clone of EasyEdit; doing it again changes nothing.

    Args:
        path: The top of the clone, of branch main.

    Returns:
        The files that were changed, made or, where an earlier version had left them, taken away; relative to the clone.

    Raises:
        HostError: When there is no clone of branch main, or a file that has to change was changed by somebody else;
            nothing has been written then.
    """
    clone = Path(path).expanduser().resolve()
    if not (clone / "easyeditor" / "__init__.py").is_file():
        raise HostError(f"There is no EasyEdit clone in {clone}; clone https://github.com/zjunlp/EasyEdit first.")
    if not (clone / "easyeditor" / "editors" / "utils.py").is_file():
        raise HostError(f"The EasyEdit in {clone} is too old: it has no easyeditor/editors/utils.py; take branch main.")
    wanted = {**_new_files(), **_changed_files(clone)}
    for name, text in wanted.items():
        _check_untouched(clone, name, text)
    written = []
    for name, text in wanted.items():
        file = clone / name
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            written.append(Path(name))
    for file in _left_over(clone, wanted):
        file.unlink()
        written.append(file.relative_to(clone))
    return written


def _new_files() -> dict[str, str]:
    """Our modules in their places there, the YAMLs, and an example."""
    files: dict[str, str] = {}
    for method in _METHODS:
        for file in sorted((_PACKAGE / method.package).glob("*.py")):
            files[f"easyeditor/models/{method.package}/{file.name}"] = _HEADER + _pointing_there(_portable(file))
        for file in sorted(packaged_hparams(method.name).glob("*.yaml")):
            if not file.stem.startswith("smollm2"):
                files[f"hparams/{method.name}/{file.name}"] = file.read_text(encoding="utf-8")
    files[f"easyeditor/models/{SHARED}/__init__.py"] = _HEADER + _SHARED_DOC
    for file in _shared_files():
        files[f"easyeditor/models/{SHARED}/{file.relative_to(_PACKAGE).as_posix()}"] = _HEADER + _portable(file)
    files["examples/run_revs_tars.py"] = _EXAMPLE
    return files


def _pointing_there(text: str) -> str:
    """A method's module whose imports from above its folder lead to the shared folder, whatever their dots."""
    return re.sub(r"^(\s*)from \.\.([\w.]+) import", rf"\1from ..{SHARED}.\2 import", text, flags=re.M)


def _portable(file: Path) -> str:
    """A module's text that needs no jaxtyping at run time: its shapes are annotations, which nothing evaluates."""
    text = file.read_text(encoding="utf-8")
    guarded = re.sub(r"^(from jaxtyping import .*)$", r"if TYPE_CHECKING:\n    \1", text, flags=re.M)
    if guarded == text:
        return text
    if re.search(r"^from typing import .*\bTYPE_CHECKING\b", guarded, flags=re.M):
        return guarded
    return guarded.replace(
        "from __future__ import annotations\n",
        "from __future__ import annotations\n\nfrom typing import TYPE_CHECKING\n",
        1,
    )


def _shared_files() -> list[Path]:
    """What the methods need: whole folders, and of the modules beside them those that are imported from there."""
    folders = [file for folder in _FOLDERS for file in sorted((_PACKAGE / folder).glob("*.py"))]
    methods = [file for method in _METHODS for file in (_PACKAGE / method.package).glob("*.py")]
    todo = [name for file in (*folders, *methods) for name in _imports(file, level=2)]
    modules: set[str] = set()
    while todo:
        name = todo.pop()
        if name.split(".")[0] not in (*_FOLDERS, *modules):
            modules.add(name)
            todo += _imports(_PACKAGE / f"{name}.py", level=1)
    return [*(_PACKAGE / f"{name}.py" for name in sorted(modules)), *folders]


def _imports(file: Path, level: int) -> list[str]:
    """The modules that a file imports from so many folders above."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return [
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == level and node.module is not None
    ]


def _left_over(clone: Path, wanted: Iterable[str]) -> list[Path]:
    """Modules that an earlier version of ours put there and that are no longer needed."""
    places = [clone / "easyeditor" / "models" / name for name in (SHARED, *(method.package for method in _METHODS))]
    files = (file for place in places for file in sorted(place.rglob("*.py")))
    kept = {clone / name for name in wanted}
    return [file for file in files if file not in kept and file.read_text(encoding="utf-8").startswith(_HEADER)]


def _changed_files(clone: Path) -> dict[str, str]:
    """The host's own files with our entries, made from what they are at HEAD."""
    # What shows that an entry is there already, and how it is made.
    edits = {
        "easyeditor/util/alg_dict.py": ("apply_revs_to_model", _algorithms),
        "easyeditor/editors/batch_editor.py": ("BatchEditor.REVS", _batches),
        "easyeditor/models/__init__.py": ("from .revs import", _imported),
        "requirements.txt": ("\nfaker", _requirements),
        "README.md": (_ROWS[0], _row),
    }
    files = {}
    for name, (mark, change) in edits.items():
        text = _at_head(clone, name)
        if text is None:
            raise HostError(f"The EasyEdit in {clone} has no {name} at HEAD; take a whole clone of branch main.")
        try:
            files[name] = text if mark in text else change(text)
        except InputError as error:
            raise HostError(f"{clone / name} is not as this version knows it ({error}); take branch main.") from error
    return files


def _algorithms(text: str) -> str:
    imports = [line for line in text.splitlines() if re.match(r"from \.\. ?models\.\w+ import", line)]
    new = [
        f"from ..models.{method.package} import {method.hyperparams.__name__}, {method.apply.__name__}"
        for method in _METHODS
    ]
    text = _after(text, imports[-1:], new)
    entries = re.search(r"^ALG_DICT = \{\n(?:.*\n)*?\}", text, flags=re.M)
    if entries is None:
        raise InputError("no ALG_DICT")
    body = entries.group().removesuffix("\n}").rstrip()
    body += "" if body.endswith(",") else ","
    ours = ",\n".join(f"    '{method.name}': {method.apply.__name__}" for method in _METHODS)
    return text.replace(entries.group(), f"{body}\n{ours}\n}}")


def _batches(text: str) -> str:
    members = re.findall(r"^    [\w]+ = ['\"].*['\"]$", text, flags=re.M)
    tests = re.findall(r"^            or alg_name == BatchEditor\.\w+\.value$", text, flags=re.M)
    if not members or not tests:
        raise InputError("no list of methods")
    text = _after(text, members[-1:], [f"    {method.name} = '{method.name}'" for method in _METHODS])
    # The tests are one expression over several lines, the last of them without a backslash.
    ours = [f"            or alg_name == BatchEditor.{method.name}.value" for method in _METHODS]
    return text.replace(tests[-1], " \\\n".join([tests[-1], *ours]))


def _imported(text: str) -> str:
    return text.rstrip("\n") + "\n" + "".join(f"from .{method.package} import *\n" for method in _METHODS)


def _requirements(text: str) -> str:
    return text.rstrip("\n") + "\nfaker\n"


def _row(text: str) -> str:
    memit = [line for line in text.splitlines() if re.match(r"\| MEMIT \|.*✅", line)]
    return _after(text, memit[:1], list(_ROWS))


def _after(text: str, anchor: list[str], lines: Iterable[str]) -> str:
    if not anchor:
        raise InputError("the place for our entry is missing")
    return text.replace(anchor[0] + "\n", "\n".join([anchor[0], *lines]) + "\n", 1)


def _check_untouched(clone: Path, name: str, wanted: str) -> None:
    """A file may be as at HEAD, as an earlier version of ours left it, or not be there."""
    file = clone / name
    if not file.is_file():
        return
    text, head = file.read_text(encoding="utf-8"), _at_head(clone, name)
    ours = text == wanted or text.startswith(_HEADER)
    if not ours and text != head:
        raise HostError(f"{file} has changes of its own; commit them or put them aside first. Nothing was written.")


def _at_head(clone: Path, name: str) -> str | None:
    done = subprocess.run(["git", "-C", str(clone), "show", f"HEAD:{name}"], capture_output=True, check=False)
    return done.stdout.decode("utf-8") if done.returncode == 0 else None
