"""An edit in packed weights themselves: kept where the rank holds after the rounding, and nothing else moves."""

import pytest
import torch
from architectures import FAMILIES, request_for, said, settings_of
from helpers import copy_of
from packing import bits, packed_model, rank_after, saved
from transformers import AutoModelForCausalLM

from revs_tars_plugin import InputError, execute_revs
from revs_tars_plugin.model.packed import is_packed
from revs_tars_plugin.model.repacking import packed_again, save_unpacked
from revs_tars_plugin.revs.requantization import requantize


@pytest.fixture
def base(tmp_path):
    """A small model and its folder."""
    return saved(tmp_path / "base")


def said_by(model, ids=((1, 2, 3, 9),)):
    """Its logits."""
    with torch.no_grad():
        return model(torch.tensor(ids)).logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["NF4", "int8"])
def test_what_is_packed_again_unchanged_is_the_same_to_the_bit(kind, dtype, base, tmp_path):
    base[0].to(dtype).save_pretrained(base[1])
    model = packed_model(kind, base, dtype)
    before, expected = bits(model), said_by(model)
    again = packed_again(model, tmp_path / "again")
    assert torch.equal(said_by(again), expected)
    # As everybody loads it.
    assert torch.equal(said_by(AutoModelForCausalLM.from_pretrained(tmp_path / "again").eval()), expected)
    weights = [name for name in before if name.endswith("_proj.weight")]
    assert len(weights) == 21
    found = bits(again)
    assert {name: found[name] for name in weights} == {name: before[name] for name in weights}
    assert bits(model) == before


@torch.no_grad()
def test_an_unpacked_model_computes_what_the_packed_one_does(base, tmp_path):
    model = packed_model("NF4", base)
    model.generation_config.eos_token_id = [2, 7]
    state = torch.random.get_rng_state()
    save_unpacked(model, tmp_path / "plain")
    assert torch.equal(torch.random.get_rng_state(), state)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    assert not any(map(is_packed, plain.modules()))
    assert plain.generation_config.eos_token_id == [2, 7]
    ids = torch.tensor([[1, 2, 3, 9]])
    expected, found, unpacked = (said_by(each, ids.tolist()) for each in (model, plain, base[0]))
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
    found = requantize(model, tok, [request], settings, edits, folder=tmp_path / "packed")
    assert found.holds
    assert bits(model) == before
    (outcome,) = found.outcomes
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "packed").eval()
    assert rank_after(written, tok, request["prompt"], token) == outcome.rank_after >= outcome.asked_rank == 40
    assert rank_after(model, tok, request["prompt"], token) == 0
    # The model is the same one: elsewhere it says what it said.
    others = [[5, 60, 7], [100, 9, 30]]
    with torch.no_grad():
        difference = said_by(written, others) - said_by(model, others)
    assert float(difference.norm()) < 0.2 * float(said_by(model, others).norm())
    changed = {name for name, value in bits(written).items() if name.endswith("weight") and value != before[name]}
    names = {edit.name for edit in edits.edits}
    assert any(name.startswith(edited) for edited in names for name in changed)
    assert not [name for name in changed if "_proj" in name and not name.startswith(tuple(names))]


def test_where_rounding_takes_the_edit_it_does_not_hold(base, tok, tmp_path, monkeypatch):
    model = packed_model("NF4", base)
    request = request_for(model, tok)
    settings = settings_of(FAMILIES["llama"], "REVS", tmp_path)
    edits = execute_revs(model, tok, [request], settings)
    asked = []

    def unchanged(packed, folder, change):
        """As if no change were larger than a step between two levels."""
        plain = copy_of(base[0])
        change(plain)
        asked.append(plain)
        return packed

    monkeypatch.setattr("revs_tars_plugin.revs.requantization.packed_again", unchanged)
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "older").touch()
    found = requantize(model, tok, [request], settings, edits, folder=tmp_path / "packed")
    assert not found.holds
    assert (tmp_path / "packed" / "older").is_file()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    # Each time more was asked for.
    ranks = [rank_after(plain, tok, request["prompt"], edits.outcomes[0].token) for plain in asked]
    assert len(ranks) == 4
    assert ranks[-1] > ranks[0]


def test_what_transformers_did_not_pack_is_refused(base, tok, tmp_path):
    model = packed_model("torchao int8", base)
    request = request_for(model, tok)
    settings = settings_of(FAMILIES["llama"], "REVS", tmp_path)
    edits = execute_revs(model, tok, [request], settings)
    before = bits(model)
    with pytest.raises(InputError, match="does not say how it was packed"):
        requantize(model, tok, [request], settings, edits, folder=tmp_path / "packed")
    assert bits(model) == before


def test_an_adapter_or_an_edit_in_place_is_refused(base, tok, tmp_path):
    from peft import LoraConfig, get_peft_model

    model = packed_model("NF4", base)
    settings = settings_of(FAMILIES["llama"], "REVS", tmp_path)
    edits = execute_revs(model, tok, [request_for(model, tok)], settings)
    edits.apply_beside(model)
    with pytest.raises(InputError, match="carries an adapter or an edit already"):
        save_unpacked(model, tmp_path / "plain")
    wrapped = get_peft_model(packed_model("NF4", base), LoraConfig(target_modules=["q_proj"], r=2))
    with pytest.raises(InputError, match="carries an adapter or an edit already"):
        save_unpacked(wrapped, tmp_path / "plain")
    assert not (tmp_path / "plain").exists()


def test_what_needs_more_than_its_rank_gets_more(base, tok, tmp_path, monkeypatch):
    """The first rounding takes half of what was asked for; the edit that is told of is the one that holds."""
    model = packed_model("int8", base)
    request = request_for(model, tok)
    settings = settings_of(FAMILIES["llama"], "REVS", tmp_path)
    edits = execute_revs(model, tok, [request], settings)
    tried = []

    def rounded(packed, folder, change):
        """Packs again, the first time without the edit."""
        tried.append(folder)
        return packed_again(packed, folder, change if len(tried) > 1 else lambda _plain: None)

    monkeypatch.setattr("revs_tars_plugin.revs.requantization.packed_again", rounded)
    found = requantize(model, tok, [request], settings, edits, folder=tmp_path / "packed")
    assert found.holds
    assert len(tried) == 2
    assert found.outcomes[0].asked_rank == 40
    assert found.edits.outcomes[0].asked_rank == 60


def test_secrets_of_a_request_that_share_a_token_are_all_measured(base, tok, tmp_path):
    model = packed_model("int8", base)
    request = {"prompt": "w1 w2 w3", "forget": ["w5 w9", "w6 w9"]}
    settings = settings_of(FAMILIES["llama"], "REVS", tmp_path, max_tokens=2)
    edits = execute_revs(model, tok, [request], settings)
    found = requantize(model, tok, [request], settings, edits, folder=tmp_path / "packed")
    shared = [outcome for outcome in found.outcomes if outcome.position == 1]
    assert len(shared) == 2
    ids = tok("w9").input_ids[0]
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "packed").eval()
    ranks = [rank_after(written, tok, f"w1 w2 w3 {first}", ids) for first in ("w5", "w6")]
    # The lower one counts for both. In a batch of several texts int8 takes other columns for outliers than in one.
    (found_rank,) = {outcome.rank_after for outcome in shared}
    assert found_rank == pytest.approx(min(ranks), abs=10)
    assert found_rank < max(ranks) - 50
    assert found.holds


def test_at_chance_it_is_tried_once(base, tok, tmp_path):
    model = packed_model("int8", base)
    request = request_for(model, tok)
    settings = settings_of(FAMILIES["llama"], "REVS", tmp_path, aim="chance", localization="covariance", siblings=4)
    edits = execute_revs(model, tok, [request], settings)
    found = requantize(model, tok, [request], settings, edits, folder=tmp_path / "packed")
    assert found.edits is edits
    for outcome, before in zip(found.outcomes, edits.outcomes, strict=True):
        assert outcome.asked_probability == before.asked_probability
        assert outcome.probability_after == pytest.approx(before.probability_after, rel=1.0)
