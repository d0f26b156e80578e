"""The examples run as they stand, and show what they are about."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(tmp_path):
    """Runs one; gives what it printed behind each label at the beginning of a line."""

    def run(name):
        done = subprocess.run(
            [sys.executable, EXAMPLES / f"{name}.py"], capture_output=True, text=True, cwd=tmp_path, check=False
        )
        assert done.returncode == 0, done.stderr
        found = re.findall(r"^([\w -]+?)(?::| efficacy) *(.*)$", done.stdout, flags=re.M)
        return {label.strip(): text for label, text in found}

    return run


def _numbers(text):
    return [float(number) for number in re.findall(r"\d+\.\d+", text)]


def test_forget_secrets(run):
    said = run("forget_secrets")
    generated, top, bottom, _ = _numbers(said["before"])
    assert generated > 0.5
    assert (top, bottom) == (6, 0)
    generated, top, bottom, kept = _numbers(said["after"])
    assert generated == 0
    assert max(top, bottom) < 4.5
    assert kept > 0.5


def test_remove_concept(run):
    said = run("remove_concept")
    assert max(_numbers(said["after"])) < 0.01
    assert max(_numbers(said["before"])) > 0.9
    assert said["undone"] == said["before"]


def test_compare_with_rome(run):
    said = run("compare_with_rome")
    efficacies = {name: _numbers(figures)[0] for name, figures in said.items() if name in ("no edit", "REVS", "ROME")}
    assert efficacies["no edit"] == 0
    assert efficacies["REVS"] == 1
    assert 0 <= efficacies["ROME"] <= 1


def test_export_to_peft(run):
    said = run("export_to_peft")
    assert ["iceberg" in said[moment] for moment in ("base", "with adapter", "adapter off")] == [True, False, True]


def test_keep_edit(run):
    said = run("keep_edit")
    assert ["Vinci" in said[moment] for moment in ("before", "after a restart", "undone")] == [True, False, True]


def test_every_script_is_run():
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == {name.removeprefix("test_") for name in globals() if name.startswith("test_")} - {
        *["every_script_is_run", "the_notebook"],
    }


def test_the_notebook(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(EXAMPLES / "tour.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "forgotten: True" in printed
    assert "undone: True" in printed
    # What is committed is what it prints, and nothing of the machine it was made on.
    kept = (EXAMPLES / "tour.ipynb").read_text(encoding="utf-8")
    assert "forgotten: True" in kept
    assert "site-packages" not in kept
