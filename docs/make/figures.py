"""Runs what README and tutorial say, in an empty folder, and puts what is printed back into the pages: `make figures`.

Blocks of "sh" are run in their order, each page's in a folder of its own; a block of "text" behind one holds what it
printed. The picture is the tutorial's report in a browser. Both pages name the commit, and `figures.json` beside this
file remembers the code, so that a test can tell when it has changed since.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import tokenize
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "docs" / "tutorial.md")
STAMP = Path(__file__).parent / "figures.json"
PICTURE = ROOT / "docs" / "report.png"
# What figures depend on: what computes an edit, and what measures it.
ROOMS = ("model", "edits", "moments", "requests", "revs", "tars", "evaluation", "discovery")
_RUN = re.compile(r"^```sh\n(?P<commands>.*?)\n```(?:\n\n```text\n(?P<printed>.*?)```)?", re.M | re.S)
_COMMIT = re.compile(r"(?<=at commit\n`)[0-9a-f]{7}(?=`)|(?<=at commit `)[0-9a-f]{7}(?=`)")


def code() -> str:
    """Returns a digest of the code that the figures depend on, and of the settings.

    Comments, docstrings and imports do not count: none of them changes what is computed.
    """
    digest = hashlib.sha256()
    for room in ROOMS:
        for file in sorted((ROOT / "revs_tars_plugin" / room).rglob("*.py")):
            digest.update(_counting(file.read_text(encoding="utf-8")).encode())
    for file in sorted((ROOT / "hparams").rglob("smollm2-135m.yaml")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _counting(source: str) -> str:
    """The lines that count, whatever version of Python reads them."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if text or isinstance(node, (ast.Import, ast.ImportFrom)):
            lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip())


def main() -> None:
    """Runs everything."""
    commit = _said("git", "rev-parse", "--short=7", "HEAD").strip()
    if _said("git", "status", "--porcelain", "--", "revs_tars_plugin", "hparams"):
        sys.exit("The code is not committed; commit it first, so that the pages can name a commit.")
    for page in PAGES:
        with tempfile.TemporaryDirectory() as folder:
            text = _RUN.sub(lambda match: _with_output(match, folder), page.read_text(encoding="utf-8"))
            page.write_text(_COMMIT.sub(commit, text), encoding="utf-8")
            if page.name == "tutorial.md":
                _draw(Path(folder) / "report.html")
    STAMP.write_text(json.dumps({"commit": commit, "code": code()}) + "\n", encoding="utf-8")


def _with_output(match: re.Match[str], folder: str) -> str:
    commands = match["commands"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # As on a terminal of this width, whatever this one's is.
    environment = {**os.environ, "PATH": path, "COLUMNS": "120", "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        ["bash", "-euc", commands], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"This failed with exit code {done.returncode}:\n{commands}")
    block = f"```sh\n{commands}\n```"
    if match["printed"] is None:
        return block
    lines = [line.rstrip() for line in done.stdout.strip("\n").splitlines()]
    return f"{block}\n\n```text\n" + "\n".join(lines) + "\n```"


def _draw(report: Path) -> None:
    """Takes a picture of the upper part of the report, in playwright's Chromium or one that is installed."""
    import shutil

    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 828}, color_scheme="light")
        page.goto(report.as_uri())
        page.screenshot(path=str(PICTURE))
        browser.close()


def _said(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main()
