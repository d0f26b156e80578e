"""The documents as a site: every link leads somewhere, and nothing is fetched from elsewhere."""

import functools
import os
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built strictly and served; gives its address."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[-3000:]
    handler = functools.partial(QuietHandler, directory=folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_pages_fetch_nothing_from_elsewhere(window, site):
    page = window()
    for name in ("index", "tutorial", "revs", "how-to/page", "reference/python"):
        page.goto(f"{site}/{name}.html", wait_until="networkidle")
    assert page.said == []
    assert page.fetched and all(url.startswith((site, "data:", "blob:")) for url in page.fetched)


def test_formulas_are_drawn_and_the_search_finds(window, site):
    page = window(1300)
    page.goto(f"{site}/revs.html", wait_until="networkidle")
    formulas = page.locator("math")
    assert formulas.count() == 4
    assert all(formulas.nth(index).bounding_box()["height"] > 10 for index in range(4))
    assert "```" not in page.inner_text("article")
    page.locator(".md-search__input").click()
    page.locator(".md-search__input").press_sequentially("requantize", delay=50)
    page.wait_for_selector(".md-search-result__link", state="attached", timeout=60_000)


def test_a_link_that_leads_nowhere_is_an_error(tmp_path):
    pytest.importorskip("mkdocs")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[nowhere](revs.md#no-such-heading)\n")
    (tmp_path / "docs" / "revs.md").write_text("# REVS\n")
    settings = (ROOT / "mkdocs.yml").read_text().split("nav:")[0].replace("hooks: [docs/make/site_hooks.py]\n", "")
    (tmp_path / "mkdocs.yml").write_text(settings)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert built.returncode != 0 and "no-such-heading" in built.stderr
