"""Contributing the methods to EasyEdit: `revs-tars upstream PATH`.

Puts REVS and TARS into a clone of EasyEdit's branch main as its README asks for methods: one folder each under
`easyeditor/models/`, one for what they share, the YAMLs, the entries in its tables, two pages and an example. The
modules are merged from this package's (`bundle.py`), the rest lies in `files/`; afterwards the clone does not need this
package.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from ...errors import HostError, InputError
from ...hyperparams import packaged_hparams
from ...methods import METHODS
from .bundle import bundles

SHARED = "revs_tars"
# The published methods; what they compare with stays here.
_METHODS = tuple(method for method in METHODS.values() if method.paper is not None)
_PACKAGE = Path(__file__).parents[2]
_FILES = Path(__file__).parent / "files"
# What the methods share: rooms, and the modules at the top that they need, which go together with what is requested.
_ROOMS = ("model", "moments")
_TOP = ("errors", "yaml_files", "atomic_write", "formatting", "hyperparams")
_FOLDERS = (SHARED, *(method.package for method in _METHODS))
# How modules of earlier versions began.
_EARLIER = "# Generated from revs-tars-plugin"
# What is written by hand for it, and which modules that stands for.
_WRITTEN = ("edits", "processes")
# In place of edits that are saved, exported and kept on disk: what the host's contract asks for. It has no launcher.
_REPLACED = ("edits.apply", "edits.edit_set", "edits.trial", "edits.weight_edits", "model.processes")
_PAGES = {method.name: f"https://github.com/zjunlp/EasyEdit/blob/main/examples/{method.name}.md" for method in _METHODS}
# Ticks for families that they were run on: GPT-2, GPT-J and NeoX, Llama, Mistral and Qwen.
_ROWS = tuple(
    f"| [{method.name}]({_PAGES[method.name]}) (unlearning) | | ✅ | ✅ | | | | ✅ | ✅ |" for method in _METHODS
)
_NEWS = (
    f"- New: the unlearning methods [REVS]({_PAGES['REVS']}), which makes a model forget secrets, and "
    f"[TARS]({_PAGES['TARS']}), which removes concepts, both by editing weights without training."
)
_BULLETS = tuple(
    f"- [{method.name}]({method.paper.address}): {what}"
    for method, what in zip(
        _METHODS,
        ("forgets secrets by rank editing in the vocabulary space", "removes concepts by angular reversal"),
        strict=True,
    )
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
    """Our modules in their places there, the YAMLs, and what explains them."""
    files = {f"easyeditor/models/{name}.py": _without_our_names(text) for name, text in _modules().items()}
    for method in _METHODS:
        for file in sorted(packaged_hparams(method.name).glob("*.yaml")):
            if not file.stem.startswith("smollm2"):
                files[f"hparams/{method.name}/{file.name}"] = _without_our_names(file.read_text(encoding="utf-8"))
        files[f"examples/{method.name}.md"] = _file(f"{method.name}.md")
    files["examples/run_revs_tars.py"] = _file("run_revs_tars.py.txt")
    return files


def _file(name: str) -> str:
    return (_FILES / name).read_text(encoding="utf-8")


def _modules() -> dict[str, str]:
    """The text of every module, by its path below `easyeditor/models` without the ending."""
    members = {
        f"{SHARED}/requests": (*_TOP, *_of_room("requests")),
        **{f"{SHARED}/{room}": _of_room(room) for room in _ROOMS},
        **{f"{SHARED}/{name}": () for name in _WRITTEN},
    }
    roots: dict[str, list[str]] = {}
    for method in _METHODS:
        settings = f"{method.package}.{method.package}_hparams"
        members[f"{method.package}/{method.package}_hparams"] = (settings,)
        members[f"{method.package}/{method.package}_main"] = tuple(
            name for name in _of_room(method.package) if name != settings
        )
        roots[f"{method.package}/{method.package}_hparams"] = [method.hyperparams.__name__]
        roots[f"{method.package}/{method.package}_main"] = [method.apply.__name__]
    roots[f"{SHARED}/model"] = ["ExpertName", "FeedForward", "FeedForwardMatrix"]
    texts = bundles(_PACKAGE, members, roots, _REPLACED, _file("edits.py.txt") + _file("run_revs_tars.py.txt"))
    modules = {name: _DOCS[name.rpartition("/")[2]] + text for name, text in texts.items()}
    modules |= {f"{SHARED}/{name}": _file(f"{name}.py.txt") for name in _WRITTEN}
    modules[f"{SHARED}/__init__"] = '"""What REVS and TARS share."""\n'
    for method in _METHODS:
        main, hparams = f"{method.package}_main", f"{method.package}_hparams"
        modules[f"{method.package}/__init__"] = (
            f"from .{hparams} import {method.hyperparams.__name__}\nfrom .{main} import {method.apply.__name__}\n"
        )
    requests = f"{SHARED}/requests"
    modules[requests] = _replaced(
        modules[requests], "class UnlearnHyperParams:", "class UnlearnHyperParams(HyperParams):"
    )
    modules[requests] = _replaced(
        modules[requests], "import yaml\n", "import yaml\n\nfrom ...util.hparams import HyperParams\n"
    )
    # Names of people without a library that the host does not need otherwise.
    names = re.compile(r"^class _Names:\n(?:.*\n)*?(?=\n\n\S)", flags=re.M)
    if not names.search(modules[requests]):
        raise HostError("The module of requests has no class _Names; the patch has to be made anew.")
    modules[requests] = names.sub(lambda _match: _file("names.py.txt"), modules[requests])
    return modules


_DOCS = {
    "requests": '"""What REVS and TARS are asked to forget, and the settings they share."""\n\n',
    "model": '"""A decoder seen through the names of its modules: feed-forward matrices, the logit lens."""\n\n',
    "moments": '"""Second moments of what feed-forward matrices read on ordinary text, in MEMIT\'s files."""\n\n',
    "revs_hparams": '"""The settings of REVS."""\n\n',
    "revs_main": '"""REVS: unlearning by rank editing in the vocabulary space (arXiv 2406.09325)."""\n\n',
    "tars_hparams": '"""The settings of TARS."""\n\n',
    "tars_main": '"""TARS: targeted angular reversal of weights (arXiv 2412.10257)."""\n\n',
}


def _of_room(room: str) -> tuple[str, ...]:
    names = (f"{room}.{file.stem}" for file in sorted((_PACKAGE / room).glob("*.py")) if file.stem != "__init__")
    return tuple(name for name in names if name not in _REPLACED)


def _replaced(text: str, old: str, new: str) -> str:
    if old not in text:
        raise HostError(f"What is merged has no {old.strip()}; the patch has to be made anew.")
    return text.replace(old, new, 1)


def _without_our_names(text: str) -> str:
    """A text that names no file that stays here."""
    return text.replace(" (docs/tars.md)", "").replace(" (docs/revs.md)", "").replace(", see docs/revs.md", "")


def _left_over(clone: Path, wanted: Iterable[str]) -> list[Path]:
    """Modules that an earlier version put there, which said so in their first line, and that are no longer needed."""
    places = [clone / "easyeditor" / "models" / name for name in _FOLDERS]
    kept = {clone / name for name in wanted}
    files = (file for place in places for file in sorted(place.rglob("*.py")) if file not in kept)
    return [file for file in files if file.read_text(encoding="utf-8").startswith(_EARLIER)]


def _changed_files(clone: Path) -> dict[str, str]:
    """The host's own files with our entries, made from what they are at HEAD."""
    # What shows that an entry is there already, and how it is made.
    edits = {
        "easyeditor/util/alg_dict.py": ("apply_revs_to_model", _algorithms),
        "easyeditor/editors/batch_editor.py": ("BatchEditor.REVS", _batches),
        "easyeditor/models/__init__.py": ("from .revs import", _imported),
        "easyeditor/editors/utils.py": ("'forget' in kwargs", _forget),
        "README.md": (_ROWS[0], _readme),
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


def _forget(text: str) -> str:
    """Lets `edit(..., forget=[...])` say what is to be forgotten."""
    if text.count("    return requests\n") != 1 and not text.endswith("    return requests"):
        raise InputError("no end of _prepare_requests")
    head, _, tail = text.rpartition("    return requests")
    ours = (
        "    if 'forget' in kwargs:\n"
        "        forget = [kwargs['forget'],] if isinstance(kwargs['forget'], str) else kwargs['forget']\n"
        "        assert len(forget) == len(requests), 'One prompt needs one entry of forget.....'\n"
        "        for request, text in zip(requests, forget):\n"
        "            request['forget'] = text\n\n"
    )
    return f"{head}{ours}    return requests{tail}"


def _imported(text: str) -> str:
    return text.rstrip("\n") + "\n" + "".join(f"from .{method.package} import *\n" for method in _METHODS)


def _readme(text: str) -> str:
    """A line of news, rows in the table of methods, and bullets with what is cited, last of the related projects."""
    news = re.findall(r"^## .*News$", text, flags=re.M)
    ultra = [line for line in text.splitlines() if line.startswith("| [UltraEdit]")]
    bullets = [line for line in text.splitlines() if line.startswith("- [UltraEdit]")]
    return _after(_after(_after(text, news[:1], [_NEWS]), ultra[:1], list(_ROWS)), bullets[:1], list(_BULLETS))


def _after(text: str, anchor: list[str], lines: Iterable[str]) -> str:
    if not anchor:
        raise InputError("the place for our entry is missing")
    return text.replace(anchor[0] + "\n", "\n".join([anchor[0], *lines]) + "\n", 1)


def _check_untouched(clone: Path, name: str, wanted: str) -> None:
    """A file may be as at HEAD or as this version makes it; in folders of ours, as any version made it."""
    file = clone / name
    if not file.is_file():
        return
    text, head = file.read_text(encoding="utf-8"), _at_head(clone, name)
    ours = head is None and name.startswith(tuple(f"easyeditor/models/{folder}/" for folder in _FOLDERS))
    if not ours and text not in (wanted, head):
        raise HostError(f"{file} has changes of its own; commit them or put them aside first. Nothing was written.")


def _at_head(clone: Path, name: str) -> str | None:
    done = subprocess.run(["git", "-C", str(clone), "show", f"HEAD:{name}"], capture_output=True, check=False)
    return done.stdout.decode("utf-8") if done.returncode == 0 else None
