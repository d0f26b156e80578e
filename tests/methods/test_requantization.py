"""An edit in packed weights themselves: kept where the rank holds after the rounding, and nothing else moves."""

import pytest
import torch
from architectures import FAMILIES, request_for, said, settings_of
from helpers import assert_same_bits
from packing import bits, packed_model, rank_after, saved

from revs_tars_plugin import InputError, execute_revs
from revs_tars_plugin.model.packed import is_packed
from revs_tars_plugin.model.repacking import packed_again, unpacked_copy
from revs_tars_plugin.revs.requantization import requantized


@pytest.fixture
def base(tmp_path):
    """A small model and its folder."""
    return saved(tmp_path / "base")


@pytest.mark.parametrize("kind", ["NF4", "int8"])
def test_what_is_packed_again_unchanged_is_the_same_to_the_bit(kind, base):
    model = packed_model(kind, base)
    before = bits(model)
    again = packed_again(model, lambda _plain: None)
    with torch.no_grad():
        again(torch.tensor([[1, 2, 3]]))
    weights = [name for name in before if name.endswith("_proj.weight")]
    assert len(weights) == 21
    found = bits(again)
    assert {name: found[name] for name in weights} == {name: before[name] for name in weights}
    assert bits(model) == before


def test_an_unpacked_copy_computes_what_the_packed_model_does(base):
    model = packed_model("NF4", base)
    plain = unpacked_copy(model)
    assert not any(map(is_packed, plain.modules()))
    ids = torch.tensor([[1, 2, 3, 9]])
    with torch.no_grad():
        expected, found, unpacked = (each(ids).logits for each in (model, plain, base[0]))
    # Kernels of 4 bits round what they are given; packing itself moved the weights much further.
    assert float((found - expected).norm()) < 0.02 * float(expected.norm())
    assert float((unpacked - expected).norm()) > 0.06 * float(expected.norm())


@pytest.mark.parametrize("kind", ["NF4", "int8"])
def test_the_rank_holds_in_the_packed_weights(kind, base, tok, tmp_path):
    model = packed_model(kind, base)
    before = bits(model)
    request, token = request_for(model, tok), said(model, tok)
    settings = settings_of(FAMILIES["llama"], "REVS", tmp_path)
    edits = execute_revs(model, tok, [request], settings)
    found = requantized(model, tok, [request], settings, edits)
    assert found.holds
    assert bits(model) == before
    (outcome,) = found.outcomes
    assert rank_after(found.model, tok, request["prompt"], token) == outcome.rank_after >= outcome.asked_rank == 40
    assert rank_after(model, tok, request["prompt"], token) == 0
    changed = {name for name, value in bits(found.model).items() if name.endswith("weight") and value != before[name]}
    names = {edit.name for edit in edits.edits}
    assert any(name.startswith(edited) for edited in names for name in changed)
    assert not [name for name in changed if "_proj" in name and not name.startswith(tuple(names))]


def test_where_rounding_takes_the_edit_it_does_not_hold(base, tok, tmp_path, monkeypatch):
    model = packed_model("NF4", base)
    request = request_for(model, tok)
    settings = settings_of(FAMILIES["llama"], "REVS", tmp_path)
    edits = execute_revs(model, tok, [request], settings)
    asked = []

    def unchanged(packed, change):
        """As if no change were larger than a step between two levels."""
        change(plain := unpacked_copy(packed))
        asked.append(plain)
        return packed

    monkeypatch.setattr("revs_tars_plugin.revs.requantization.packed_again", unchanged)
    found = requantized(model, tok, [request], settings, edits)
    assert not found.holds
    # Each time more was asked for.
    ranks = [rank_after(plain, tok, request["prompt"], edits.outcomes[0].token) for plain in asked]
    assert len(ranks) == 4
    assert ranks == sorted(ranks)
    assert ranks[-1] >= 100


def test_what_transformers_did_not_pack_is_refused(base, tok, tmp_path):
    model = packed_model("torchao int8", base)
    request = request_for(model, tok)
    settings = settings_of(FAMILIES["llama"], "REVS", tmp_path)
    edits = execute_revs(model, tok, [request], settings)
    with pytest.raises(InputError, match="does not say how it was packed"):
        requantized(model, tok, [request], settings, edits)
    assert_same_bits(base[0], base[0].state_dict())
