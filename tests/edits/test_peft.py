"""An edit as a LoRA adapter: plain peft gives the edited model's logits, whatever kind of edit and module."""

import json
import subprocess
import sys

import pytest
import torch
from helpers import an_edit, assert_same_bits, copy_of, snapshot, tiny_settings
from peft import PeftModel
from safetensors.torch import load_file

from revs_tars_plugin import EditSet, InputError, execute_revs

IDS = torch.tensor([[1, 2, 3, 9, 4], [50, 60, 70, 80, 7]])


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def edited_logits(model, edits):
    edits.apply(model)
    try:
        return logits(model)
    finally:
        edits.undo(model)


@pytest.mark.parametrize("kind", ["neurons", "covariance", "tars"])
def test_the_adapter_is_the_edit(model, tok, requests_, tmp_path, kind):
    edits = an_edit(model, tok, requests_, kind, tmp_path)
    if kind == "tars":
        assert {edit.name.split(".")[-2] for edit in edits.edits} == {"gate_proj", "up_proj"}
    base, edited = logits(model), edited_logits(model, edits)
    assert float((base - edited).abs().max()) > 1e-2
    edits.to_peft(tmp_path / "adapter")
    own = copy_of(model)
    before = snapshot(own)
    wrapped = PeftModel.from_pretrained(own, tmp_path / "adapter")
    torch.testing.assert_close(logits(wrapped), edited, atol=1e-4, rtol=0)
    with wrapped.disable_adapter():
        assert torch.equal(logits(wrapped), base)
    wrapped.merge_adapter()
    torch.testing.assert_close(logits(wrapped), edited, atol=1e-4, rtol=0)
    wrapped.unmerge_adapter()
    torch.testing.assert_close(logits(wrapped.unload()), base, atol=1e-4, rtol=0)
    assert before.keys() == snapshot(wrapped.unload()).keys()


def test_each_weight_has_the_rank_it_needs(model, tok, requests_, tmp_path):
    edits = an_edit(model, tok, requests_, "neurons", tmp_path)
    edits.to_peft(tmp_path, base_model="somebody/base")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["rank_pattern"] == {edit.name.removesuffix(".weight"): len(edit.indices) for edit in edits.edits}
    assert config["alpha_pattern"] == config["rank_pattern"]
    assert config["base_model_name_or_path"] == "somebody/base"


def test_several_adapters_combine(model, tok, requests_, tmp_path):
    first = execute_revs(model, tok, requests_[:1], tiny_settings(layers=[0, 1]))
    first.apply(model)
    second = execute_revs(model, tok, requests_[1:], tiny_settings(layers=[2]))
    second.apply(model)
    both = logits(model)
    second.undo(model)
    first.undo(model)
    first.to_peft(tmp_path / "first")
    second.to_peft(tmp_path / "second")
    wrapped = PeftModel.from_pretrained(copy_of(model), tmp_path / "first", adapter_name="first")
    wrapped.load_adapter(tmp_path / "second", "second")
    wrapped.add_weighted_adapter(["first", "second"], [1.0, 1.0], "both", combination_type="cat")
    wrapped.set_adapter("both")
    torch.testing.assert_close(logits(wrapped), both, atol=1e-4, rtol=0)


def test_an_edit_without_a_change_has_no_adapter(tmp_path):
    with pytest.raises(InputError, match="changes nothing"):
        EditSet("REVS", ()).to_peft(tmp_path)


def test_a_saved_edit_is_exported_too(model, tok, requests_, tmp_path):
    edits = an_edit(model, tok, requests_, "covariance", tmp_path)
    before = snapshot(model)
    edits.save(tmp_path / "edit.safetensors")
    EditSet.load(tmp_path / "edit.safetensors").to_peft(tmp_path / "adapter")
    assert_same_bits(model, before)
    wrapped = PeftModel.from_pretrained(copy_of(model), tmp_path / "adapter")
    torch.testing.assert_close(logits(wrapped), edited_logits(model, edits), atol=1e-4, rtol=0)
    assert_same_bits(model, before)


PLAIN = """
import sys
sys.modules["revs_tars_plugin"] = None
import torch
from peft import PeftModel
from safetensors.torch import load_file
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(sys.argv[1]), sys.argv[2]).eval()
with torch.no_grad():
    save_file({"logits": model(torch.tensor([[1, 2, 3, 9, 4], [50, 60, 70, 80, 7]])).logits}, sys.argv[3])
"""


def test_a_process_that_never_imports_this_package_has_the_edited_model(model, tok, requests_, tmp_path):
    edits = an_edit(model, tok, requests_, "neurons", tmp_path)
    model.save_pretrained(tmp_path / "base")
    edits.to_peft(tmp_path / "adapter", base_model=str(tmp_path / "base"))
    command = [sys.executable, "-c", PLAIN, tmp_path / "base", tmp_path / "adapter", tmp_path / "out.safetensors"]
    subprocess.run(command, check=True, capture_output=True)
    found = load_file(tmp_path / "out.safetensors")["logits"]
    torch.testing.assert_close(found, edited_logits(model, edits), atol=1e-4, rtol=0)
