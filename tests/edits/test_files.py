"""Saved edits: the same edit comes back, the file holds no secret, and what is damaged or foreign is refused."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import an_edit, assert_same_bits, copy_of, snapshot
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from revs_tars_plugin import EditConflictError, EditSet, InputError
from revs_tars_plugin.edits.files import FORMAT, VERSION
from revs_tars_plugin.errors import EditFileError

SAVED = Path(__file__).parent / "saved"


@pytest.mark.parametrize("kind", ["neurons", "covariance", "tars"])
def test_a_loaded_edit_does_what_the_saved_one_did(model, tok, requests_, tmp_path, kind):
    before = snapshot(model)
    edits = an_edit(model, tok, requests_, kind, tmp_path)
    assert edits.edits
    path = tmp_path / "new" / "edit.safetensors"
    edits.save(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    loaded = EditSet.load(path)
    assert (loaded.method, loaded.settings, loaded.n_changed) == (edits.method, edits.settings, edits.n_changed)
    assert loaded.requests == loaded.outcomes == ()
    edits.apply(model)
    edited = snapshot(model)
    edits.undo(model)
    loaded.apply(model)
    assert_same_bits(model, edited)
    assert any(not torch.equal(value, before[name]) for name, value in edited.items())
    with pytest.raises(EditConflictError, match="already applied"):
        loaded.apply(model)
    with pytest.raises(EditConflictError):
        EditSet.load(path).apply(model)
    assert_same_bits(model, edited)
    loaded.undo(model)
    assert_same_bits(model, before)


@pytest.mark.parametrize("kind", ["neurons", "covariance"])
def test_edits_saved_by_earlier_versions_are_read(kind):
    """Made by commit 9053b9f for this model, whose weights are the same on every machine."""
    model = a_model_without_random_numbers()
    before = snapshot(model)
    edits = EditSet.load(SAVED / f"{kind}.safetensors")
    assert edits.settings["residual_bottom_rank"] == 0.3
    assert len(edits.edits) == 2
    edits.apply(model)
    assert all(not torch.equal(model.get_parameter(edit.name), before[edit.name]) for edit in edits.edits)
    edits.undo(model)
    assert_same_bits(model, before)


def a_model_without_random_numbers():
    config = LlamaConfig(
        vocab_size=201,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for number, (name, parameter) in enumerate(sorted(model.named_parameters())):
            steps = torch.arange(parameter.numel()) * 7919 + number * 104729 + 31
            values = steps.pow(2) % 9973 / 9973.0
            parameter.copy_((values + 0.5 if "norm" in name else values - 0.5).reshape(parameter.shape))
    return model


@pytest.mark.parametrize("kind", ["neurons", "covariance"])
def test_another_base_model_is_refused(model, tok, requests_, tmp_path, kind):
    edits = an_edit(model, tok, requests_, kind, tmp_path)
    edits.save(tmp_path / "edit.safetensors")
    other = copy_of(model)
    with torch.no_grad():
        other.get_parameter(edits.edits[-1].name).mul_(1.0001)
    before = snapshot(other)
    with pytest.raises(EditConflictError, match="apply it to the model it was computed for"):
        EditSet.load(tmp_path / "edit.safetensors").apply(other)
    assert_same_bits(other, before)


def test_the_secret_is_in_the_file_only_when_asked_for(model, tok, requests_, tmp_path):
    edits = an_edit(model, tok, requests_, "neurons", tmp_path)
    plain, full = tmp_path / "plain.safetensors", tmp_path / "full.safetensors"
    edits.save(plain)
    edits.save(full, include_requests=True)
    secret = requests_[0]["target_new"]
    assert secret.encode() not in plain.read_bytes()
    assert requests_[0]["prompt"].encode() not in plain.read_bytes()
    assert secret.encode() in full.read_bytes()
    assert [request["target_new"] for request in EditSet.load(full).requests] == [r["target_new"] for r in requests_]
    assert secret not in repr(edits)
    with safe_open(plain, framework="pt") as opened:
        content = json.loads(opened.metadata()["content"])
    assert content.keys() == {"method", "settings", "edits", "versions", "created"}
    assert all(entry["fingerprint"] for entry in content["edits"])


def test_an_edit_that_changes_nothing_is_not_saved(tmp_path):
    with pytest.raises(InputError, match="nothing to save"):
        EditSet("REVS", ()).save(tmp_path / "none.safetensors")
    assert not list(tmp_path.iterdir())


def test_every_flipped_byte_is_seen(model, tok, requests_, tmp_path):
    path = tmp_path / "edit.safetensors"
    an_edit(model, tok, requests_, "neurons", tmp_path).save(path)
    data = path.read_bytes()
    for place in range(0, len(data), max(1, len(data) // 150)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        with pytest.raises(InputError):
            EditSet.load(path)
    path.write_bytes(data)
    assert EditSet.load(path).edits


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path, data: path.write_bytes(data[: len(data) // 2]), "is no whole safetensors file"),
        (lambda path, data: path.write_bytes(b""), "is no whole safetensors file"),
        (lambda path, data: path.write_text("alg_name: REVS"), "is no whole safetensors file"),
        (lambda path, data: save_file({"a": torch.ones(2)}, path), "is a safetensors file, but no saved edit"),
        (
            lambda path, data: save_file({"a": torch.ones(2)}, path, {"format": FORMAT, "version": str(VERSION + 1)}),
            f"format version {VERSION + 1}, this library reads up to {VERSION}",
        ),
        (
            lambda path, data: save_file(
                {"a": torch.ones(2)}, path, {"format": FORMAT, "version": "1", "content": "{}", "digest": ""}
            ),
            "is damaged",
        ),
        (lambda path, data: path.unlink(), "There is no file"),
    ],
)
def test_files_that_are_none_of_ours_are_refused(model, tok, requests_, tmp_path, make, message):
    path = tmp_path / "edit.safetensors"
    an_edit(model, tok, requests_, "neurons", tmp_path).save(path)
    make(path, path.read_bytes())
    with pytest.raises(EditFileError, match=message) as error:
        EditSet.load(path)
    assert str(path) in str(error.value)


def test_a_full_disk_leaves_the_old_file(model, tok, requests_, tmp_path, monkeypatch):
    path = tmp_path / "edit.safetensors"
    edits = an_edit(model, tok, requests_, "neurons", tmp_path)
    edits.save(path)
    data = path.read_bytes()

    def full(_handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EditFileError, match=r"cannot be written \(No space left on device\)"):
        edits.save(path)
    assert path.read_bytes() == data
    assert [file.name for file in tmp_path.glob("*.unfinished")] == []
    assert [file.name for file in tmp_path.glob(".*")] == []


def test_a_place_that_cannot_be_written_is_named(model, tok, requests_, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EditFileError, match="cannot be written"):
        an_edit(model, tok, requests_, "neurons", tmp_path).save(tmp_path / "file" / "edit.safetensors")


KILLED = """
import sys, torch
from revs_tars_plugin import EditSet
from revs_tars_plugin.edits.weight_edits import NeuronEdit
values = torch.zeros(200, 20_000)
edit = NeuronEdit("w", 1, torch.arange(200), values, values + 1, 400)
print("ready", flush=True)
while True:
    EditSet("REVS", (edit,)).save(sys.argv[1])
"""


def test_a_process_killed_while_it_saves_leaves_a_whole_file(model, tok, requests_, tmp_path):
    """It saves again and again, and is killed at some moment in between, five times."""
    path = tmp_path / "edit.safetensors"
    replace(an_edit(model, tok, requests_, "neurons", tmp_path), method="OLD").save(path)
    unfinished = 0
    for attempt in range(5):
        process = subprocess.Popen([sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE)
        assert process.stdout.readline().strip() == b"ready"
        time.sleep(0.05 + 0.07 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert EditSet.load(path).method in ("OLD", "REVS")
        unfinished += len(list(tmp_path.glob(".*.unfinished")))
    assert unfinished > 0  # it was in the middle of one at least once
