"""The page in a real browser: an edit and its undo by clicks."""

import urllib.error
import urllib.request

import pytest
import yaml
from helpers import SECRETS, assert_same_bits, snapshot, tiny_settings

from revs_tars_plugin.cli.page.workbench import Workbench

pytest.importorskip("gradio")
_PATIENCE = 30_000


@pytest.fixture
def workbench(tmp_path):
    settings, text = tmp_path / "tiny.yaml", tmp_path / "text.txt"
    settings.write_text(yaml.safe_dump(tiny_settings(device="cpu").to_dict()))
    text.write_text(" ".join(f"w{number}" for number in range(40)))
    return Workbench(tmp_path, "cpu", settings=str(settings), text=str(text))


@pytest.fixture
def served(workbench, monkeypatch, tmp_path):
    """The page as the command serves it; gives its address."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    from revs_tars_plugin.cli.page.layout import launch_options, page_of

    page = page_of(workbench)
    _, address, _ = page.launch(prevent_thread_lock=True, **launch_options(None, open_browser=False))
    yield address
    page.close()


@pytest.fixture
def opened(window, served):
    """Opens it in a window of so many points."""

    def opened(width=1100, scheme="light"):
        page = window(width, scheme)
        page.set_default_timeout(_PATIENCE)
        page.goto(served)
        page.wait_for_selector("#load")
        return page

    return opened


def says(page, part, text):
    """Waits until a part of the page has a text."""
    page.wait_for_function("([part, text]) => document.querySelector(part).innerText.includes(text)", arg=[part, text])


def loaded(page, folder):
    page.locator("#model :is(input, textarea)").fill(str(folder))
    page.click("#load")
    says(page, "#status", "weights")


def add(page, prompt, secret):
    page.get_by_label("What leads to it").fill(prompt)
    page.get_by_label("What must be forgotten").fill(secret)
    page.click("#add-secret")


def test_an_edit_and_its_undo_by_clicks(opened, served, folder, said, workbench):
    page = opened()
    switch = page.get_by_label("The edit is in the model")
    assert switch.is_disabled()
    loaded(page, folder)
    model = workbench.loaded.model
    before = snapshot(model)
    secret = said(SECRETS[0])
    add(page, SECRETS[0], secret)
    says(page, "#asked", SECRETS[0])
    page.click("#forget")
    says(page, "#status", "The edit is in the model")
    assert workbench.edits.stands_in(model) and switch.is_checked()
    assert page.locator("#measured figure svg").count() >= 5
    # Masked until it is asked for; what was typed is dots to the eye, as in a field for passwords.
    assert secret not in page.inner_text("#asked") + page.inner_text("#measured")
    dots = "element => getComputedStyle(element).webkitTextSecurity"
    assert page.get_by_label("What must be forgotten").evaluate(dots) == "disc"

    page.get_by_label("Prompt", exact=True).fill(SECRETS[0])
    page.click("#ask")
    says(page, "#said", "without the edit")
    page.get_by_label("Show secrets").click()
    says(page, "#asked", secret)
    assert page.get_by_label("What must be forgotten").evaluate(dots) == "none"
    says(page, "#said", secret)
    page.get_by_label("Show secrets").click()
    page.wait_for_function("secret => !document.querySelector('#said').innerText.includes(secret)", arg=secret)

    switch.click()
    says(page, "#status", "bit for bit")
    assert_same_bits(model, before)
    switch.click()
    says(page, "#status", "The edit is in the model")
    assert workbench.edits.stands_in(model)

    page.locator("#name :is(input, textarea)").fill("forgotten")
    page.click("#save")
    says(page, "#status", "Written")
    assert (workbench.folder / "forgotten.safetensors").is_file()
    page.click("#clear")
    says(page, "#asked", "Nothing is on the list")
    assert_same_bits(model, before)
    assert page.said == []
    assert all(url.startswith((served, "data:", "blob:")) for url in page.fetched)


def test_what_cannot_be_done_is_one_sentence(opened, folder):
    page = opened()
    page.click("#forget")
    says(page, "#status", "No model is loaded")
    page.locator("#model :is(input, textarea)").fill("./nowhere")
    page.click("#load")
    says(page, "#status", "which is not there")
    add(page, "", "w1")
    says(page, "#status", '"What leads to it" is empty')
    # What is typed is text, whatever it looks like.
    add(page, "<img src=x onerror=alert(1)>", "w1")
    says(page, "#asked", "<img src=x")
    assert page.locator("#asked img").count() == 0
    assert page.said == []


def test_a_phone_at_night(opened, folder, said):
    page = opened(390, "dark")
    loaded(page, folder)
    add(page, SECRETS[0], said(SECRETS[0]))
    says(page, "#asked", SECRETS[0])
    page.click("#forget")
    says(page, "#status", "The edit is in the model")
    page.wait_for_selector("#measured figure svg")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    ink, ground = page.evaluate(
        """() => [getComputedStyle(document.querySelector("#measured svg text")).fill,
                  getComputedStyle(document.body).backgroundColor]"""
    )
    assert brightness(ink) > 0.7 and brightness(ground) < 0.2
    assert page.said == []


def test_a_page_of_another_name_is_refused(served):
    """A name that somebody lets point to this machine (DNS rebinding)."""
    for host, status in (("127.0.0.1", 200), ("localhost:7860", 200), ("evil.example", 400)):
        request = urllib.request.Request(served, headers={"Host": host})
        try:
            with urllib.request.urlopen(request) as answer:
                assert answer.status == status
        except urllib.error.HTTPError as error:
            assert error.code == status


def brightness(colour):
    """The mean of an rgb(...) colour's parts, 0 to 1."""
    parts = [float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    return sum(parts) / 3 / 255
