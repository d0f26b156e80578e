"""What is shipped: source distribution and wheel carry the YAMLs, the report's page and the command."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_wheel_carries_what_is_no_module(tmp_path):
    """Built offline with the environment's own setuptools, from a copy, so that no build folder is left behind."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("revs_tars_plugin", "hparams"):
        shutil.copytree(ROOT / name, source / name)
    # The wheel is made of the source distribution, so that one holds all that it takes.
    made = tmp_path / "dist"
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", made, source]
    subprocess.run(command, check=True, capture_output=True)
    files = sorted(made.iterdir())
    assert [file.suffix for file in files] == [".whl", ".gz"]
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *files], check=True, capture_output=True)
    wheel = files[0]
    names = set(zipfile.ZipFile(wheel).namelist())
    yamls = {f"revs_tars_plugin/{path.relative_to(ROOT)}" for path in (ROOT / "hparams").rglob("*.yaml")}
    assert yamls
    assert yamls <= names
    assert {
        "revs_tars_plugin/py.typed",
        "revs_tars_plugin/report/forgetting.html.jinja",
        "revs_tars_plugin/report/page.html.jinja",
        "revs_tars_plugin/report/parts.html.jinja",
        "revs_tars_plugin/data/concepts.yaml",
    } <= names
    assert not any(name.startswith(("tests", "hparams/")) for name in names)
    (entry,) = (name for name in names if name.endswith("entry_points.txt"))
    assert "revs-tars = revs_tars_plugin.cli:main" in zipfile.ZipFile(wheel).read(entry).decode()
