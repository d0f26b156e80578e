"""Layers that accelerate keeps elsewhere are edited where they are kept, and come back to the bit."""

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from architectures import FAMILIES, request_for, said, settings_of
from helpers import assert_same_bits, copy_of, snapshot
from transformers import AutoModelForCausalLM

from revs_tars_plugin import EditSet, InputError, execute_revs, execute_tars
from revs_tars_plugin.edits.apply import apply_function
from revs_tars_plugin.ft_l_delete import FTLDeleteHyperParams, execute_ft_l_delete
from revs_tars_plugin.model.decoder import Decoder
from revs_tars_plugin.model.offloaded import weight_of, weights_of

PLACES = ["cpu", "disk", "checkpoint"]
LAYER = "model.layers.{}"


def offloaded(place, model, tmp_path):
    """The same model with its weights elsewhere: in memory, in accelerate's own files, or in the checkpoint."""
    if place == "cpu":
        return cpu_offload(copy_of(model), torch.device("cpu"))
    if place == "disk":
        return disk_offload(copy_of(model), str(tmp_path / "offload"), torch.device("cpu"))
    model.save_pretrained(tmp_path / "model")
    parts = {**dict.fromkeys(("model.norm", "model.rotary_emb", "model.embed_tokens", "lm_head"), "cpu")}
    parts |= {LAYER.format(layer): "cpu" if layer == 0 else "disk" for layer in range(len(model.model.layers))}
    return AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", device_map=parts, offload_folder=str(tmp_path / "offload")
    ).eval()


def rank_after(model, tok, request, token):
    with torch.no_grad():
        logits = model(tok(request["prompt"], return_tensors="pt").input_ids).logits[0, -1]
    return int((logits > logits[token]).sum())


@pytest.mark.parametrize("localization", ["neurons", "covariance"])
@pytest.mark.parametrize("place", PLACES)
def test_the_edit_is_that_of_the_model_in_memory(place, localization, tok, tmp_path):
    family = FAMILIES["mistral"]
    plain = family.make()
    model = offloaded(place, plain, tmp_path)
    assert model.model.layers[2].mlp.down_proj.weight.is_meta
    request, token = request_for(plain, tok), said(plain, tok)
    settings = settings_of(family, "REVS", tmp_path, localization=localization)
    expected = execute_revs(plain, tok, [request], settings)
    edits = execute_revs(model, tok, [request], settings)
    assert edits.outcomes[0].reached
    assert rank_after(model, tok, request, token) == 0  # every bit is back
    # The very edit, which fits both: what differs between them is where the weights are.
    assert [edit.name for edit in edits.edits] == [edit.name for edit in expected.edits]
    before = snapshot(plain)
    edits.apply(plain)
    edits.undo(plain)
    assert_same_bits(plain, before)
    edits.apply(model)
    assert rank_after(model, tok, request, token) == edits.outcomes[0].rank_after >= 40
    assert model.model.layers[2].mlp.down_proj.weight.is_meta  # still elsewhere
    edits.save(tmp_path / "edit.safetensors")
    EditSet.load(tmp_path / "edit.safetensors").undo(model)
    assert rank_after(model, tok, request, token) == 0
    for name, value in before.items():
        path, _, last = name.rpartition(".")
        assert torch.equal(weight_of(model.get_submodule(path), last), value)


def test_the_checkpoint_is_not_written_to(tok, tmp_path):
    family = FAMILIES["mistral"]
    plain = family.make()
    model = offloaded("checkpoint", plain, tmp_path)
    files = {file: file.read_bytes() for file in (tmp_path / "model").iterdir()}
    settings = settings_of(family, "REVS", tmp_path)
    execute_revs(model, tok, [request_for(plain, tok)], settings).apply(model)
    assert {file: file.read_bytes() for file in (tmp_path / "model").iterdir()} == files
    assert_same_bits(AutoModelForCausalLM.from_pretrained(tmp_path / "model"), snapshot(plain))


@pytest.mark.parametrize("place", PLACES)
def test_tars_and_the_hosts_contract(place, tok, tmp_path):
    family = FAMILIES["mistral"]
    plain = family.make()
    model = offloaded(place, plain, tmp_path)
    request = request_for(plain, tok)
    settings = settings_of(family, "TARS", tmp_path, refine="whitened", min_probability=0.001, goal_probability=0.0005)
    _, originals = apply_function(execute_tars)(model, tok, [request], settings, return_orig_weights=True)
    (outcome,) = originals.edits.outcomes
    assert max(outcome.after) < 0.7 * max(outcome.before)
    before = snapshot(plain)
    for name, value in originals.items():
        assert torch.equal(value, before[name])
    originals.edits.undo(model)


def test_norms_behind_ff2_experts_and_the_head_may_be_elsewhere(tok, tmp_path):
    for name in ("gemma2", "mixtral", "gpt_oss"):
        family = FAMILIES[name]
        plain = family.make()
        model = cpu_offload(copy_of(plain), torch.device("cpu"))
        assert model.lm_head.weight.is_meta
        request, token = request_for(plain, tok), said(plain, tok)
        edits = execute_revs(model, tok, [request], settings_of(family, "REVS", tmp_path, localization="covariance"))
        edits.apply(model)
        assert edits.outcomes[0].reached
        assert rank_after(model, tok, request, token) >= 40


def test_what_trains_weights_says_that_it_cannot(tok, tmp_path):
    family = FAMILIES["mistral"]
    plain = family.make()
    model = offloaded("disk", plain, tmp_path)
    hparams = FTLDeleteHyperParams(alg_name="FT-L-delete", model_name="tiny", **family.names, layers=[2])
    with pytest.raises(InputError, match="those of a layer to edit are offloaded"):
        execute_ft_l_delete(model, tok, [request_for(plain, tok)], hparams)


def test_a_weight_that_is_nowhere_is_still_refused(tok, tmp_path):
    with torch.device("meta"):
        model = FAMILIES["mistral"].kind(FAMILIES["mistral"].config(**FAMILIES["mistral"].settings))
    assert all(value.is_meta for value in weights_of(model.model.norm).values())
    with pytest.raises(InputError, match="is on the meta device"):
        Decoder.of(model, settings_of(FAMILIES["mistral"], "REVS", tmp_path))
