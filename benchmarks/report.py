"""The report that the README shows: ten memorised secrets forgotten through the command line, measured, and drawn.

The model is the one of `revs-tars compare`, which knows 48 synthetic secrets by heart (made the first time, about five
minutes). With --image the head of the page is taken as a picture, by playwright's Chromium or an installed one.

Run: python benchmarks/report.py FOLDER [--image FILE.png]
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from revs_tars_plugin.cli import main as revs_tars
from revs_tars_plugin.data.memorised import memorised_demo

_WIDTH, _HEIGHT = 1000, 1030


def main() -> None:
    """Runs the three commands in a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the secrets, the edit, the result and the page")
    parser.add_argument("--image", type=Path)
    arguments = parser.parse_args()
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    model, forget, keep = memorised_demo()
    with (folder / "secrets.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "target", "subject", "rephrase_prompt", "retain"])
        for chosen, retain in ((forget, "no"), (keep, "yes")):
            writer.writerows([s.prompt, s.target, s.subject, s.rewordings[0], retain] for s in chosen)
    asked, edit, result, page = (folder / name for name in ("secrets.csv", "edit.safetensors", "result.json", "r.html"))
    for command in (
        ["edit", asked, "-m", model, "-o", edit],
        ["evaluate", asked, "-m", model, "-e", edit, "--never-learned", "demo", "-o", result],
        ["report", result, "-o", page],
    ):
        code = revs_tars([*map(str, command), "--overwrite"])
        if code:
            sys.exit(code)
    if arguments.image:
        _take(page, arguments.image)


def _take(page: Path, image: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": _WIDTH, "height": _HEIGHT})
        opened.goto(page.resolve().as_uri())
        opened.screenshot(path=image)
        browser.close()


if __name__ == "__main__":
    main()
