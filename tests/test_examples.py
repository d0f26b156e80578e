"""The examples run as they stand."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path, tmp_path):
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    before, after, undone = (
        [line for line in done.stdout.splitlines() if line.startswith(m)] for m in ("be", "af", "un")
    )
    assert ["iceberg" in line for line in (before[0], after[0], undone[0])] == [True, False, True]
