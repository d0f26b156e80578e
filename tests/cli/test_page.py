"""The page's list and its model, without a browser."""

import pytest
import yaml
from helpers import SECRETS, assert_same_bits, snapshot, tiny_settings

from revs_tars_plugin.cli.page.entries import MOST_CHARACTERS, MOST_ENTRIES, with_concept, with_file, with_secret
from revs_tars_plugin.cli.page.workbench import Workbench
from revs_tars_plugin.cli.requests_file import RequestsFile
from revs_tars_plugin.edits.edit_set import EditSet
from revs_tars_plugin.errors import InputError

SUBJECT = "Jane Doe"


@pytest.fixture
def workbench(folder, tmp_path, said):
    """A loaded model with two secrets on the list."""
    settings = tmp_path / "tiny.yaml"
    settings.write_text(yaml.safe_dump(tiny_settings(device="cpu").to_dict()))
    text = tmp_path / "text.txt"
    text.write_text(" ".join(f"w{number}" for number in range(40)))
    kept = tmp_path / "kept"
    kept.mkdir()
    bench = Workbench(kept, "cpu", settings=str(settings), text=str(text))
    bench.load(str(folder))
    asked = RequestsFile()
    for prompt in SECRETS:
        asked = with_secret(asked, prompt, said(prompt), SUBJECT)
    bench.ask_for(asked)
    return bench


def test_an_edit_goes_in_and_out_with_the_switch(workbench):
    model = workbench.loaded.model
    before = snapshot(model)
    workbench.forget(progress=False)
    assert workbench.inside and workbench.edits.stands_in(model)
    assert workbench.measured["before"]["summary"]["still generated"] == 1
    assert workbench.measured["after"]["summary"]["still generated"] == 0
    workbench.switch(False)
    assert_same_bits(model, before)
    workbench.switch(True)
    assert workbench.edits.stands_in(model)


def test_what_it_says_is_told_of_both_and_the_switch_stays(workbench, said):
    workbench.say(SECRETS[0])
    assert list(workbench.said) == ["without the edit"]
    workbench.forget(progress=False)
    for stands in (True, False):
        workbench.switch(stands)
        workbench.say(SECRETS[0])
        both = workbench.said
        assert both["without the edit"].split()[:2] == said(SECRETS[0]).split()
        assert both["with the edit"].split()[:2] != said(SECRETS[0]).split()
        assert workbench.inside is stands


@pytest.mark.parametrize("what", ["another list", "another edit", "nothing to forget"])
def test_an_edit_leaves_the_model_before_anything_else_happens(workbench, what):
    before = snapshot(workbench.loaded.model)
    workbench.forget(progress=False)
    if what == "another edit":
        first = workbench.edits
        workbench.forget(progress=False)
        workbench.switch(False)
        assert workbench.edits is not first
    else:
        workbench.ask_for(workbench.asked if what == "another list" else RequestsFile())
        assert workbench.edits is None and workbench.measured is None
        with pytest.raises(InputError, match="There is no edit yet"):
            workbench.switch(True)
    assert_same_bits(workbench.loaded.model, before)


def test_a_measurement_that_fails_leaves_the_model_as_it_was(workbench, monkeypatch):
    from revs_tars_plugin.cli.measurement import Measurement

    before = snapshot(workbench.loaded.model)
    measure = Measurement.measure

    def fails_after(self, moment, *arguments):
        if moment == "after":
            raise RuntimeError("no memory")
        return measure(self, moment, *arguments)

    monkeypatch.setattr(Measurement, "measure", fails_after)
    with pytest.raises(RuntimeError):
        workbench.forget(progress=False)
    assert_same_bits(workbench.loaded.model, before)
    assert workbench.edits is None and not workbench.inside


def test_what_is_kept_has_no_secret_and_puts_the_edit_back(workbench, model, said):
    with pytest.raises(InputError, match="no edit yet"):
        workbench.save("edit")
    workbench.forget(progress=False)
    files = workbench.save("edit")
    assert sorted(file.name for file in workbench.folder.iterdir()) == ["edit.html", "edit.json", "edit.safetensors"]
    for file in files[1:]:
        assert said(SECRETS[0]) not in file.read_text() and SUBJECT not in file.read_text()
    EditSet.load(files[0]).apply(model)
    assert workbench.edits.stands_in(model)
    with pytest.raises(InputError, match="there already"):
        workbench.save("edit")


@pytest.mark.parametrize(
    "name", ["", "../edit", "/tmp/edit", "a/b", "..", ".hidden", "x" * 65, "a\\b", "a\nb", "a\x00"]
)
def test_nothing_is_written_outside_the_folder(workbench, name, tmp_path):
    workbench.forget(progress=False)
    with pytest.raises(InputError, match='"Name" may have letters'):
        workbench.save(name)
    assert not list(workbench.folder.iterdir())


def test_a_model_that_cannot_be_loaded_leaves_the_one_that_is_there(workbench, tmp_path):
    loaded = workbench.loaded
    for name, said in ((str(tmp_path / "nowhere"), "is not there"), (" ", "checkpoint folder"), ("x" * 5000, "hub id")):
        with pytest.raises(InputError, match=said):
            workbench.load(name)
        assert workbench.loaded is loaded


def test_without_a_model_every_button_says_so(tmp_path):
    bench = Workbench(tmp_path)
    for press in (lambda: bench.forget(progress=False), lambda: bench.say("w1")):
        with pytest.raises(InputError, match="press Load"):
            press()


def test_what_is_typed_is_bounded(tmp_path):
    empty = RequestsFile()
    for typed, said in (
        (("", "w1"), '"What leads to it" is empty'),
        (("w1", " "), '"What must be forgotten" is empty'),
        (("w1", "w" * (MOST_CHARACTERS + 1)), '"What must be forgotten" has 4,001 characters'),
        (("w1", "w2", "n" * (MOST_CHARACTERS + 1)), '"Whom it is about" has'),
    ):
        with pytest.raises(InputError, match=said):
            with_secret(empty, *typed)
    with pytest.raises(InputError, match='"What leads to the name" is empty'):
        with_concept(empty, "w1", "\n \n")
    with pytest.raises(InputError, match="each has a method of its own"):
        with_concept(with_secret(empty, "w1", "w2"), "w3", "w4\n\nw5")
    assert with_concept(empty, "w3", "w4\n\nw5").concepts[0].prompts == ("w4", "w5")


def test_a_file_is_bounded_and_read_as_for_the_commands(tmp_path):
    asked = with_secret(RequestsFile(), "w1", "w2")
    file = tmp_path / "secrets.csv"
    file.write_text("prompt,target,retain\nw3,w4,\nw5,w6,yes\n")
    more = with_file(asked, str(file))
    assert [record.prompt for record in more.forget] == ["w1", "w3"] and len(more.retain) == 1
    file.write_text("prompt,target\n" + "w1,w2\n" * (MOST_ENTRIES + 1))
    with pytest.raises(InputError, match="takes 500 entries"):
        with_file(asked, str(file))
    file.write_text("prompt,target\n" + f"w1,{'w' * (MOST_CHARACTERS + 1)}\n")
    with pytest.raises(InputError, match=r"more than 4,000 characters"):
        with_file(asked, str(file))
    file.write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(InputError, match=r"this page takes 1,048,576"):
        with_file(asked, str(file))


def test_prompts_of_a_concept_count(tmp_path):
    file = tmp_path / "concepts.yaml"
    file.write_text(yaml.safe_dump({"concepts": [{"name": "w1", "prompts": ["w2 w3"] * (MOST_ENTRIES + 1)}]}))
    with pytest.raises(InputError, match="takes 500 entries"):
        with_file(RequestsFile(), str(file))
    facts = [["w1 " + "w" * MOST_CHARACTERS, "w2"]]
    file.write_text(yaml.safe_dump({"concepts": [{"name": "w1", "prompts": ["w2"], "facts": facts}]}))
    with pytest.raises(InputError, match="more than 4,000 characters"):
        with_file(RequestsFile(), str(file))


def test_what_was_said_is_masked_still_when_the_list_is_empty(workbench, said):
    secret = said(SECRETS[0])
    workbench.ask_for(RequestsFile())
    workbench.say(SECRETS[0])
    assert secret in workbench.said["without the edit"]
    assert secret not in workbench.redactor(show=False)(workbench.said["without the edit"])


def test_what_nobody_expected_is_said_masked_and_the_page_shows_what_is_true(workbench, said, monkeypatch, caplog):
    pytest.importorskip("gradio")
    from revs_tars_plugin.cli.page.layout import _Actions

    secret = said(SECRETS[0])
    workbench.forget(progress=False)

    def fails(self, progress=True):
        self._take_out()
        self._drop()
        raise RuntimeError(f"no memory for {secret}")

    monkeypatch.setattr(Workbench, "forget", fails)
    status, _, switch, measured, answer = _Actions(workbench).forget(lambda *_, **__: None, False)
    assert "Unexpected RuntimeError" in status and secret not in status + caplog.text
    assert switch.value is False and measured == "" == answer


def test_an_upload_is_read_once_and_removed(workbench, tmp_path):
    pytest.importorskip("gradio")
    from revs_tars_plugin.cli.page.layout import _Actions

    file = tmp_path / "upload.csv"
    for text in ("prompt,target\nw3,w4\n", "nonsense"):
        file.write_text(text)
        _Actions(workbench).add_file(None, False, str(file))
        assert not file.exists()
    assert workbench.asked.forget[-1].target == "w4"
