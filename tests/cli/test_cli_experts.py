"""A mixture of experts on the command line: its names are found, and what is written can be loaded."""

import pytest
import torch
from architectures import FAMILIES
from helpers import SECRETS, snapshot
from peft import PeftModel
from transformers import AutoModelForCausalLM

from revs_tars_plugin import EditSet


@pytest.fixture
def model():
    """In place of the dense one of the other commands."""
    return FAMILIES["mixtral"].make()


def test_experts_are_edited_measured_exported_and_undone(run, folder, secrets, tok, tmp_path):
    edit, merged, adapter = tmp_path / "e.safetensors", tmp_path / "merged", tmp_path / "adapter"
    changes = ("--set", "aim=rank", "--set", "residual_bottom_rank=40", "--set", "residual_top_rank=120")
    code, _, err = run(
        "edit", secrets, "-m", folder, "-o", edit, *changes, "--merged", merged, "--require", "reached>=1"
    )
    assert code == 0, err
    names = {change.name for change in EditSet.load(edit).edits}
    assert names
    assert all("mlp.experts.down_proj[" in name and name.endswith(" of 4]") for name in names)
    measured = ("evaluate", secrets, "-m", folder, "--edit", edit, "--attack", "logit lens", "--k", 20)
    code, _, err = run(*measured, "--require", "efficacy>=0.5")
    assert code == 0, err
    assert run("export", "peft", edit, "-o", adapter)[0] == 0
    ids = tok(SECRETS[0], return_tensors="pt").input_ids
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(merged)(ids).logits
        base = AutoModelForCausalLM.from_pretrained(folder)
        plain = base(ids).logits
        found = PeftModel.from_pretrained(base, adapter)(ids).logits
    assert float((plain - expected).abs().max()) > 1e-2
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)
    code, _, err = run("undo", edit, "-m", merged, "--base", folder, "-o", tmp_path / "restored")
    assert code == 0, err
    before = snapshot(AutoModelForCausalLM.from_pretrained(folder))
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "restored").state_dict()
    assert all(torch.equal(value, before[name]) for name, value in after.items())
