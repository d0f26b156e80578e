"""A model in 4 bits on the command line: edited, measured, and exported as what can hold the edit."""

import json

import pytest
import torch
from architectures import wide_llama
from helpers import SECRETS, snapshot
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from revs_tars_plugin import EditSet


@pytest.fixture
def model():
    """Wider than that of the other commands."""
    return wide_llama()


@pytest.fixture
def packed(folder, tok, tmp_path):
    """The checkpoint in NF4, as people share them."""
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, dtype=torch.float32)
    model.save_pretrained(tmp_path / "packed")
    tok.save_pretrained(tmp_path / "packed")
    return tmp_path / "packed"


@pytest.fixture
def secrets(packed, tok, tmp_path):
    """What the packed model says, which is not what the unpacked one does."""
    model = AutoModelForCausalLM.from_pretrained(packed)
    lines = []
    for prompt in SECRETS:
        ids = tok(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            said = model.generate(ids, max_new_tokens=2, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
        lines.append(f"{prompt},{tok.decode(said)}")
    path = tmp_path / "packed.csv"
    path.write_text("\n".join(["prompt,target", *lines]))
    return path


def test_a_packed_model_is_edited_beside_its_weights(run, packed, folder, secrets, settings, tok, tmp_path):
    edit, adapter = tmp_path / "e.safetensors", tmp_path / "adapter"
    arguments = ("edit", secrets, "-m", packed, "-s", settings, "-o", edit)
    code, _, err = run(*arguments, "--merged", tmp_path / "merged")
    assert (code, "is packed, and no edit can be written into it" in err) == (2, True)
    assert not edit.exists()
    code, out, err = run(*arguments, "--adapter", adapter, "--require", "reached>=1")
    assert code == 0, err
    assert "The model is packed: the edit goes beside it as an adapter" in out
    assert EditSet.load(edit).packed

    # Measured with the edit beside the weights, as with the adapter.
    result = tmp_path / "result.json"
    measured = ("evaluate", secrets, "-m", packed, "--edit", edit, "--attack", "logit lens", "--k", 20, "-o", result)
    code, _, err = run(*measured, "--require", "efficacy>=1")
    assert code == 0, err
    assert json.loads(result.read_text())["before"]["summary"]["efficacy"] == 0
    wrapped = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(packed), adapter)
    base = AutoModelForCausalLM.from_pretrained(packed)
    ids = tok(SECRETS[0], return_tensors="pt").input_ids
    with torch.no_grad():
        said = int(base(ids).logits[0, -1].argmax())
        logits = wrapped(ids).logits[0, -1]
    assert int((logits > logits[said]).sum()) >= 20

    # One more on top of it, which is of packed weights as well.
    more = ("--after", edit, "-s", settings, "-o", tmp_path / "second.safetensors")
    code, _, err = run("edit", secrets, "-m", packed, *more, "--merged", tmp_path / "merged")
    assert (code, "is packed" in err) == (2, True)
    code, _, err = run("edit", secrets, "-m", packed, *more, "--set", "residual_bottom_rank=0.5")
    assert code == 0, err
    assert EditSet.load(tmp_path / "second.safetensors").packed

    # Into the unpacked model, which it was not made for.
    target = tmp_path / "unpacked"
    code, _, err = run("export", "merged", edit, "--model", folder, "-o", target)
    assert (code, "differs from the one this edit belongs to" in err) == (2, True)
    code, _, err = run("export", "merged", edit, "--base", folder, "-o", target)
    assert code == 0, err
    before = snapshot(AutoModelForCausalLM.from_pretrained(folder))
    after = AutoModelForCausalLM.from_pretrained(target).state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {change.name for change in EditSet.load(edit).edits}


def test_one_of_two_models_is_named_and_the_right_one(run, edited, folder, tmp_path):
    code, _, err = run("export", "merged", edited, "-o", tmp_path / "a")
    assert (code, "Name the model by --model, or by --base" in err) == (2, True)
    code, _, err = run("export", "merged", edited, "--base", folder, "-o", tmp_path / "a")
    assert (code, "was made for a model as it is, not for a packed one" in err) == (2, True)


def test_a_packed_model_takes_the_edit_where_ranks_hold(run, packed, folder, secrets, settings, tok, tmp_path):
    edit, target = tmp_path / "e.safetensors", tmp_path / "requantized"
    arguments = ("edit", secrets, "-m", packed, "-s", settings, "-o", edit)
    code, _, err = run("edit", secrets, "-m", folder, "-s", settings, "-o", edit, "--requantize", target)
    assert (code, "are not packed; use --merged" in err) == (2, True)
    for more, message in (
        (("--method", "TARS"), "method"),
        (("--after", edit), "leave --after out"),
        (("--adapter", target), "Two of the outputs have one name"),
    ):
        code, _, err = run(*arguments, "--requantize", target, *more)
        assert (code, message in err) == (2, True), err
    code, out, err = run(*arguments, "--requantize", target, "--adapter", tmp_path / "adapter")
    assert code == 0, err
    assert "Packed again with the edit in it" in out
    assert (tmp_path / "adapter").is_dir()
    assert f"The model, packed again: {target}" in out
    model = AutoModelForCausalLM.from_pretrained(target)
    assert model.config.quantization_config.load_in_4bit
    ids = tok(SECRETS[0], return_tensors="pt").input_ids
    with torch.no_grad():
        said = int(AutoModelForCausalLM.from_pretrained(packed)(ids).logits[0, -1].argmax())
        logits = model(ids).logits[0, -1]
        elsewhere = torch.tensor([[5, 60, 7]])
        before, after = (each(elsewhere).logits for each in (AutoModelForCausalLM.from_pretrained(packed), model))
    assert int((logits > logits[said]).sum()) >= 20
    assert float((after - before).norm()) < 0.4 * float(before.norm())


def test_where_rounding_takes_the_edit_nothing_is_written(run, packed, secrets, settings, tmp_path, monkeypatch):
    edit, target = tmp_path / "e.safetensors", tmp_path / "requantized"
    monkeypatch.setattr("revs_tars_plugin.revs.requantization.packed_again", lambda model, _folder, _change: model)
    code, out, err = run("edit", secrets, "-m", packed, "-s", settings, "-o", edit, "--requantize", target)
    assert code == 1, err
    assert "tokens are where they were asked to be, so" in err
    assert "was not written" in err
    assert not target.exists()
    assert edit.exists()
    assert "packed again" not in out
