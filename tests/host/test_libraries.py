"""What EasyEdit needs of other libraries: there, or put in its place by us; and which of their versions we support."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

from revs_tars_plugin.host.main_bridge import DROPPED_MODULE, DROPPED_NAMES
from revs_tars_plugin.host.release_bridge import MOVED_NAMES

# In a process of its own, so that nothing is bridged: names that modules import from these libraries and do not find.
_MISSING = """
import ast, importlib, json, sys, warnings
warnings.simplefilter("ignore")
missing = set()
for path in json.load(sys.stdin):
    for node in ast.parse(open(path, encoding="utf-8").read()).body:
        if not isinstance(node, ast.ImportFrom) or node.level or node.module.split(".")[0] not in {libraries}:
            continue
        for alias in node.names:
            try:
                module = importlib.import_module(node.module)
                found = alias.name == "*" or hasattr(module, alias.name)
                found or importlib.import_module(node.module + "." + alias.name)
            except ImportError:
                missing.add(node.module + "." + alias.name)
print(json.dumps(sorted(missing)))
"""
_LIBRARIES = ("transformers", "torch", "torchvision", "peft", "datasets", "numpy", "sentence_transformers")


def test_what_the_host_imports_is_there_or_bridged(host):
    """Where a library drops a name that the host imports, this names it."""
    files = [
        module.__file__
        for name, module in list(sys.modules.items())
        if name.split(".")[0] == "easyeditor" and getattr(module, "__file__", None)
    ]
    assert len(files) > 50
    code = _MISSING.replace("{libraries}", repr(_LIBRARIES))
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(files), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    missing = set(json.loads(done.stdout.splitlines()[-1]))
    if host.generation == "main":
        bridged = {f"{DROPPED_MODULE}.{name}" for name in DROPPED_NAMES}
    else:
        bridged = {f"transformers.modeling_utils.{name}" for name in MOVED_NAMES}
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers", "peft"))
    assert missing <= bridged, f"EasyEdit ({host.generation}) misses {sorted(missing - bridged)} with {versions}"
    assert missing in (set(), bridged)


def test_installed_versions_are_in_the_ranges_that_pyproject_names():
    """And upper bounds stand only where a newer version is known to break something."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    ranges = {requirement.name: requirement for requirement in _requirements(text)}
    assert {"torch", "transformers", "peft", "numpy", "datasets", "sentence-transformers"} <= ranges.keys()
    for name in ("torch", "transformers", "peft"):
        assert ranges[name].specifier, f"pyproject.toml names no range of {name}"
    outside = [
        f"{requirement} (installed: {version})"
        for name, requirement in ranges.items()
        if (version := _installed(name)) and not requirement.specifier.contains(version, prereleases=True)
    ]
    assert not outside
    assert not [name for name, requirement in ranges.items() if any("<" in s.operator for s in requirement.specifier)]


def _requirements(text):
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"]
    return map(Requirement, [*extras["host"], *extras["report"], *extras["demo"], *project["dependencies"]])


def _installed(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
