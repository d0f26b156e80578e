"""Precisions, placements, and models that carry an adapter: edited exactly where they stand, or refused."""

import pytest
import torch
from accelerate import dispatch_model
from architectures import said
from helpers import assert_same_bits, covariance_settings, snapshot, tiny_settings, tiny_tars
from peft import LoraConfig, get_peft_model

from revs_tars_plugin import InputError, execute_revs, execute_tars
from revs_tars_plugin.data import SecretRecord
from revs_tars_plugin.evaluation import evaluate_unlearning
from revs_tars_plugin.requests.reading import read_requests


def settings(localization, tmp_path):
    if localization == "covariance":
        return covariance_settings(tmp_path, max_tokens=1)
    return tiny_settings(max_tokens=1)


def rank(model, context, token):
    with torch.no_grad():
        logits = model(torch.tensor([list(context)])).logits[0, -1].float()
    return int((logits > logits[token]).sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("localization", ["neurons", "covariance"])
def test_ranks_are_those_of_the_cast_weights(model, tok, requests_, tmp_path, localization, dtype):
    model.to(dtype)
    before = snapshot(model)
    edits = execute_revs(model, tok, requests_, settings(localization, tmp_path))
    assert_same_bits(model, before)
    edits.apply(model)
    assert all(parameter.dtype == dtype for parameter in model.parameters())
    secrets = read_requests(requests_, tok)
    for outcome in edits.outcomes:
        found = rank(model, secrets[outcome.request].context(outcome.position), outcome.token)
        # Half precision ties many tokens, and a batch may round otherwise than a single pass.
        assert abs(found - outcome.rank_after) <= (0 if dtype == torch.float32 else 3)
        assert outcome.rank_before < 5
        assert outcome.reached
    edits.undo(model)
    assert_same_bits(model, before)


@pytest.fixture
def wrapped(model):
    """The model with a LoRA adapter on FF2 and attention that really changes something."""
    torch.manual_seed(1)
    config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["down_proj", "q_proj"], init_lora_weights=False)
    return get_peft_model(model, config).eval()


@pytest.mark.parametrize("localization", ["neurons", "covariance"])
def test_a_model_with_an_adapter_is_edited_in_its_base_weights(wrapped, tok, tmp_path, localization):
    before = snapshot(wrapped)
    prompt = "w1 w2 w3"
    with_adapter = tok.decode([said(wrapped, tok, prompt)])
    with wrapped.disable_adapter():
        assert tok.decode([said(wrapped, tok, prompt)]) != with_adapter  # the adapter decides what is said
    request = {"prompt": prompt, "target_new": with_adapter}
    edits = execute_revs(wrapped, tok, [request], settings(localization, tmp_path))
    assert_same_bits(wrapped, before)
    (outcome,) = edits.outcomes
    assert outcome.rank_before == 0
    assert outcome.reached
    record = [SecretRecord(prompt, with_adapter)]
    unedited = evaluate_unlearning(wrapped, tok, record, names=tiny_settings(), k=20, attacks=["logit lens"])
    edits.apply(wrapped)
    edited = evaluate_unlearning(wrapped, tok, record, names=tiny_settings(), k=20, attacks=["logit lens"])
    assert unedited.summary["efficacy"] == 0
    assert edited.summary["efficacy"] == 1
    changed = {name for name, value in wrapped.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all("down_proj.base_layer" in name for name in changed)
    edits.undo(wrapped)
    assert_same_bits(wrapped, before)
    # The same edit fits the base model without its adapter.
    base = wrapped.unload()
    edits.apply(base)
    edits.undo(base)


def test_tars_on_a_model_with_an_adapter(wrapped, tok, tmp_path):
    before = snapshot(wrapped)
    prompt = "w1 w2 w3"
    request = {"prompt": prompt, "target_new": tok.decode([said(wrapped, tok, prompt)])}
    hparams = tiny_tars(
        stats_dir=str(tmp_path), min_probability=0.001, goal_probability=0.0005, affinity="contribution"
    )
    edits = execute_tars(wrapped, tok, [request], hparams)
    assert_same_bits(wrapped, before)
    (outcome,) = edits.outcomes
    assert max(outcome.after) < 0.7 * max(outcome.before)
    edits.apply(wrapped)
    edits.undo(wrapped)
    assert_same_bits(wrapped, before)


def test_a_merged_adapter_is_refused(wrapped, tok):
    wrapped.merge_adapter()
    before = snapshot(wrapped)
    with pytest.raises(InputError, match=r"An adapter is merged into .*; unmerge it first"):
        execute_revs(wrapped, tok, [{"prompt": "w1 w2", "target_new": "w3"}], tiny_settings())
    assert_same_bits(wrapped, before)


def test_a_dispatched_model_is_edited_where_it_stands(model, tok, requests_):
    """accelerate's hooks around every layer, as `device_map="auto"` leaves them."""
    alone = execute_revs(model, tok, requests_, tiny_settings())
    devices = {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.norm": "cpu", "lm_head": "cpu"}
    devices.update({f"model.layers.{layer}": "cpu" for layer in range(3)})
    dispatched = dispatch_model(model, devices, main_device="cpu", force_hooks=True)
    before = snapshot(dispatched)
    edits = execute_revs(dispatched, tok, requests_, tiny_settings())
    assert [edit.name for edit in edits.edits] == [edit.name for edit in alone.edits]
    for ours, theirs in zip(edits.edits, alone.edits, strict=True):
        assert torch.equal(ours.after, theirs.after)
    edits.apply(dispatched)
    edits.undo(dispatched)
    assert_same_bits(dispatched, before)
