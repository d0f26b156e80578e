"""Edits made one after another, joined: one thing that undoes, saves and applies all of them, to the bit."""

import gc

import pytest
import torch
from helpers import an_edit, assert_same_bits, copy_of, snapshot

from revs_tars_plugin import EditConflictError, EditSet, InputError
from revs_tars_plugin.edits.apply import OriginalWeights

KINDS = ["neurons", "covariance", "tars"]


def one_after_another(model, tok, requests_, kind, folder):
    """Applies an edit for each request, each computed on the model that the ones before left; returns them joined."""
    parts = []
    for request in requests_:
        parts.append(an_edit(model, tok, [request], kind, folder))
        parts[-1].apply(model)
    assert len(parts) == 2
    assert all(part.edits for part in parts)
    return EditSet.in_order(parts)


@pytest.mark.parametrize("kind", KINDS)
def test_undo_restores_every_bit_after_the_parts_are_gone(model, tok, requests_, tmp_path, kind):
    before = snapshot(model)
    joined = one_after_another(model, tok, requests_, kind, tmp_path)
    gc.collect()
    assert joined.stands_in(model)
    assert len({edit.name for edit in joined.edits}) < len(joined.edits), "no weight was edited twice"
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    joined.undo(model)
    assert_same_bits(model, before)
    assert not joined.stands_in(model)
    with pytest.raises(EditConflictError):
        joined.undo(model)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_holds_all_of_it(model, tok, requests_, tmp_path, kind):
    fresh = copy_of(model)
    joined = one_after_another(model, tok, requests_, kind, tmp_path)
    joined.save(tmp_path / "joined.safetensors", include_requests=True)
    loaded = EditSet.load(tmp_path / "joined.safetensors")
    assert [request["prompt"] for request in loaded.requests] == [request["prompt"] for request in requests_]
    before = snapshot(fresh)
    loaded.apply(fresh)
    assert_same_bits(fresh, snapshot(model))
    with pytest.raises(EditConflictError):
        loaded.apply(fresh)
    assert_same_bits(fresh, snapshot(model))
    loaded.undo(fresh)
    assert_same_bits(fresh, before)
    # And out of a model that was saved with it, in whatever process.
    loaded.undo_by_base(model, fresh)
    assert_same_bits(model, before)
    assert_same_bits(fresh, before)


@pytest.mark.parametrize("kind", KINDS)
def test_the_original_weights_are_those_before_the_first(model, tok, requests_, tmp_path, kind):
    before = snapshot(model)
    original = OriginalWeights(model, one_after_another(model, tok, requests_, kind, tmp_path))
    for name, value in original.items():
        assert torch.equal(value, before[name])
        assert not torch.equal(value, model.get_parameter(name))


def test_outcomes_name_their_requests_among_all(model, tok, requests_, tmp_path):
    joined = one_after_another(model, tok, requests_, "neurons", tmp_path)
    assert {outcome.request for outcome in joined.outcomes} == {0, 1}
    joined = EditSet.in_order([an_edit(model, tok, [request], "tars", tmp_path) for request in requests_])
    assert [outcome.requests for outcome in joined.outcomes] == [(0,), (1,)]


def test_what_is_changed_twice_counts_once(model, tok, requests_, tmp_path):
    before = snapshot(model)
    joined = one_after_another(model, tok, requests_, "neurons", tmp_path)
    changed = sum(
        int((value != before[name]).any(dim=0).sum()) for name, value in model.state_dict().items() if value.dim() > 1
    )
    assert joined.n_changed >= changed * 32
    assert joined.n_changed < sum(edit.n_changed for edit in joined.edits)


def test_one_that_does_not_fit_leaves_everything_as_it_was(model, tok, requests_, tmp_path):
    fresh = copy_of(model)
    joined = one_after_another(model, tok, requests_, "neurons", tmp_path)
    last = joined.edits[-1]
    with torch.no_grad():
        fresh.get_parameter(last.name).movedim(last.neuron_dim, 0)[last.indices[-1]] += 1
    before = snapshot(fresh)
    with pytest.raises(EditConflictError):
        joined.apply(fresh)
    assert_same_bits(fresh, before)
    edited = snapshot(model)
    with torch.no_grad():
        model.get_parameter(joined.edits[0].name).add_(1)
    before = snapshot(model)
    with pytest.raises(EditConflictError):
        joined.undo(model)
    assert_same_bits(model, before)
    assert any(not torch.equal(value, before[name]) for name, value in edited.items())


def test_an_edit_without_a_change_is_neither_undone_nor_saved(model, tmp_path):
    nothing = EditSet("REVS", ())
    assert not nothing.stands_in(model)
    with pytest.raises(InputError, match=r"nothing to undo.*sequential_edit=True"):
        nothing.undo(model)
    with pytest.raises(InputError, match="nothing to save"):
        nothing.save(tmp_path / "nothing.safetensors")
