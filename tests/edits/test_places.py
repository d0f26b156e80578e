"""What stood before a product: it lives with the applied edit, belongs to the layer, and every equal edit finds it."""

import pickle
from copy import deepcopy

import pytest
import torch
from helpers import an_edit, assert_same_bits, snapshot
from peft import LoraConfig, get_peft_model

from revs_tars_plugin import EditConflictError, EditSet


@pytest.mark.parametrize("kind", ["neurons", "covariance", "tars"])
def test_a_loaded_edit_undoes_the_applied_one_that_it_equals(model, tok, requests_, tmp_path, kind):
    before = snapshot(model)
    edits = an_edit(model, tok, requests_, kind, tmp_path)
    edits.save(tmp_path / "edit.safetensors")
    edits.apply(model)
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    EditSet.load(tmp_path / "edit.safetensors").undo(model)
    assert_same_bits(model, before)
    assert not [name for module in model.modules() for name in vars(module) if "revs_tars" in name]
    with pytest.raises(EditConflictError, match="not applied"):
        edits.undo(model)
    edits.apply(model)
    edits.undo(model)
    assert_same_bits(model, before)


def test_an_adapter_may_come_and_go_around_an_applied_edit(model, tok, requests_, tmp_path):
    """What stood before belongs to the layer, not to the wrapper that peft puts around it for a while."""
    config = LoraConfig(r=2, target_modules=["down_proj"], task_type="CAUSAL_LM")
    before = snapshot(model)
    edits = an_edit(model, tok, requests_, "covariance", tmp_path)
    edits.apply(model)
    wrapped = get_peft_model(model, config)
    edits.undo(wrapped)
    edits.apply(wrapped)
    model = wrapped.unload()
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    edits.undo(model)
    assert_same_bits(model, before)


@pytest.mark.parametrize("kind", ["neurons", "covariance"])
def test_an_undo_that_breaks_off_leaves_the_edit_in_place_and_its_owner_able_to_undo(
    model, tok, requests_, tmp_path, kind, monkeypatch
):
    before = snapshot(model)
    edits = an_edit(model, tok, requests_, kind, tmp_path)
    edits.save(tmp_path / "edit.safetensors")
    edits.apply(model)
    edited = snapshot(model)
    last = type(edits.edits[-1])
    write, calls = last.write, []

    def breaks_at_the_second(edit, place, *, applied):
        write(edit, place, applied=applied)
        calls.append(applied)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(last, "write", breaks_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        EditSet.load(tmp_path / "edit.safetensors").undo(model)
    monkeypatch.undo()
    assert_same_bits(model, edited)
    edits.undo(model)
    assert_same_bits(model, before)


def test_an_edit_that_is_applied_again_and_again_keeps_one_copy(model, tok, requests_, tmp_path):
    edits = an_edit(model, tok, requests_, "covariance", tmp_path)
    edits.save(tmp_path / "edit.safetensors")
    loaded = EditSet.load(tmp_path / "edit.safetensors")
    for _ in range(3):
        edits.apply(model)
        loaded.undo(model)
    edits.apply(model)
    assert {len(products) for products in edits._applied.values()} == {1}
    copied = pickle.loads(pickle.dumps(edits))  # as it goes to a worker process; no file is read
    assert len(copied.edits) == len(edits.edits)
    copied.undo(model)


def test_what_stood_before_goes_with_the_applied_edit(model, tok, requests_, tmp_path):
    """A model that is edited again and again keeps none of the weights of edits that nobody holds any more."""
    edits = an_edit(model, tok, requests_, "covariance", tmp_path)
    edits.save(tmp_path / "edit.safetensors")
    edits.apply(model)
    module = model.get_submodule(edits.edits[0].name.removesuffix(".weight"))
    (products,) = (value for name, value in vars(module).items() if "revs_tars" in name)
    assert len(products) == 1
    del edits
    assert len(products) == 0
    with pytest.raises(EditConflictError, match="undo_by_base"):
        EditSet.load(tmp_path / "edit.safetensors").undo(model)


def test_an_edited_model_is_copied_and_written_as_any_other(model, tok, requests_, tmp_path):
    before = snapshot(model)
    edits = an_edit(model, tok, requests_, "covariance", tmp_path)
    edits.apply(model)
    copied = deepcopy(model)
    torch.save(model, tmp_path / "whole.pt")
    edits.undo(model)
    edits.undo(copied)
    assert_same_bits(model, before)
    assert_same_bits(copied, before)
