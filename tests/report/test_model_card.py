"""The card beside an export: what was done and measured, without the secret; and its upload, against a stub."""

import huggingface_hub
import pytest
import yaml
from helpers import tiny_settings

from revs_tars_plugin import InputError, execute_revs
from revs_tars_plugin.report.model_card import model_card, push_to_hub, write_card


@pytest.fixture
def edits(model, tok, requests_):
    return execute_revs(model, tok, requests_, tiny_settings(stats_dir="/home/somebody/private"))


def test_the_card_says_what_was_done_and_no_secret(edits, requests_):
    text = model_card(
        edits, base_model="some/model", before={"efficacy": 0.0}, after={"efficacy": 0.97, "kl_mean": 0.01}
    )
    header = yaml.safe_load(text.split("---")[1])
    assert header["base_model"] == "some/model"
    assert "revs" in header["tags"]
    assert "2406.09325" in text
    assert "| efficacy | 0 | 0.97 |" in text
    assert "| kl_mean |  | 0.01 |" in text
    assert "| `n_neurons` | `20` |" in text
    assert "points at what was forgotten" in text
    words = {word for request in requests_ for word in f"{request['prompt']} {request['target_new']}".split()}
    assert not words & set(text.replace("`", " ").split())
    assert "/home/somebody" not in text


def test_without_figures_it_says_so(edits):
    assert "No figures were given" in model_card(edits)


class Stub:
    """Stands in for the hub; remembers what it was asked for."""

    def __init__(self, *, token=None, refuses=None):
        self.asked, self.token, self.refuses = [], token, refuses

    def create_repo(self, repo_id, **kwargs):
        if self.refuses:
            raise self.refuses
        self.asked.append((repo_id, kwargs))

    def upload_folder(self, **kwargs):
        self.asked.append(kwargs)

        class Commit:
            commit_url = "https://hub/commit/1"

        return Commit


def test_an_export_is_uploaded_privately(edits, tmp_path, monkeypatch):
    stub = Stub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda token: stub)
    edits.to_peft(tmp_path)
    with pytest.raises(InputError, match=r"has no README\.md; write a model card first"):
        push_to_hub(tmp_path, "me/edit")
    assert stub.asked == []
    write_card(tmp_path, model_card(edits))
    assert push_to_hub(tmp_path, "me/edit") == "https://hub/commit/1"
    (repo_id, how), upload = stub.asked
    assert (repo_id, how) == ("me/edit", {"private": True, "exist_ok": True})
    assert upload["folder_path"] == str(tmp_path)


def test_a_refusing_hub_is_named(edits, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda token: Stub(refuses=ConnectionError("no\nroute")))
    write_card(tmp_path, model_card(edits))
    with pytest.raises(InputError, match=r"The hub refuses me/edit \(ConnectionError: no route\)"):
        push_to_hub(tmp_path, "me/edit")


def test_a_card_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_card(tmp_path / "file", "text")
