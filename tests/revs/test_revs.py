"""REVS on a tiny model: ranks reached by the smallest step, weights untouched until the edit is applied."""

import logging

import pytest
import torch
from helpers import assert_same_bits, snapshot, tiny_settings

from revs_tars_plugin import apply_revs_to_model, execute_revs
from revs_tars_plugin.requests.reading import read_requests


def rank_and_probability(model, context, token):
    """Read from the model in the plainest way."""
    with torch.no_grad():
        logits = model(torch.tensor([context])).logits[0, -1]
    return int((logits > logits[token]).sum()), float(logits.softmax(-1)[token])


def test_every_target_ends_at_its_rank_and_was_not_there_before(model, tok, requests_, hparams):
    secrets = read_requests(requests_, tok)
    edits = execute_revs(model, tok, requests_, hparams)
    assert len(edits.outcomes) == 4
    contexts = [(secrets[o.request].context(o.position), o) for o in edits.outcomes]
    for context, outcome in contexts:
        rank, probability = rank_and_probability(model, context, outcome.token)
        assert rank == outcome.rank_before == 0
        assert probability == pytest.approx(outcome.probability_before, rel=1e-4)
    edits.apply(model)
    for context, outcome in contexts:
        rank, probability = rank_and_probability(model, context, outcome.token)
        assert rank == outcome.rank_after >= outcome.asked_rank == 60
        assert outcome.reached
        assert probability == pytest.approx(outcome.probability_after, rel=1e-3)
        assert outcome.neurons > 0


def test_weights_are_untouched_by_execute_and_restored_by_undo(model, tok, requests_, hparams):
    before = snapshot(model)
    edits = execute_revs(model, tok, requests_, hparams)
    assert_same_bits(model, before)
    edits.apply(model)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {edit.name for edit in edits.edits}
    assert changed <= {f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(3)}
    edits.undo(model)
    assert_same_bits(model, before)


def test_only_the_named_layers_are_edited(model, tok, requests_):
    edits = execute_revs(model, tok, requests_, tiny_settings(layers=[2]))
    assert {edit.name for edit in edits.edits} == {"model.layers.2.mlp.down_proj.weight"}


def test_the_same_call_gives_the_same_edit(model, tok, requests_, hparams):
    first = execute_revs(model, tok, requests_, hparams)
    torch.manual_seed(123)
    second = execute_revs(model, tok, requests_, hparams)
    for a, b in zip(first.edits, second.edits, strict=True):
        assert torch.equal(a.indices, b.indices)
        assert torch.equal(a.after, b.after)


def test_global_random_state_and_modes_are_left_alone(model, tok, requests_, hparams):
    model.train()
    model.model.layers[1].eval()
    state = torch.get_rng_state()
    execute_revs(model, tok, requests_, hparams)
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert not model.model.layers[1].training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_secret_at_its_rank_changes_nothing_and_says_so(model, tok, requests_, hparams, caplog):
    execute_revs(model, tok, requests_, hparams).apply(model)
    with caplog.at_level(logging.INFO):
        again = execute_revs(model, tok, requests_, hparams)
    # Early layers may still be short of the rank; the last one is not.
    last = [edit for edit in again.edits if edit.name.startswith("model.layers.2")]
    assert not last
    fresh = execute_revs(model, tok, requests_, tiny_settings(layers=[2]))
    assert not fresh.edits
    assert "already had rank" in caplog.text


def test_a_rank_that_cannot_be_reached_is_reported(model, tok, requests_, caplog):
    hparams = tiny_settings(
        n_neurons=1, act_filter="top_1", layers=[0], neuron_bottom_rank=1, neuron_top_rank=2, max_tokens=1
    )
    edits = execute_revs(model, tok, requests_, hparams)
    assert not all(outcome.reached for outcome in edits.outcomes)
    assert "ended at rank" in caplog.text
    assert requests_[0]["target_new"] not in caplog.text


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ranks_hold_after_the_cast(model, tok, requests_, hparams, dtype):
    model.to(dtype)
    before = snapshot(model)
    edits = execute_revs(model, tok, requests_, hparams)
    assert_same_bits(model, before)
    edits.apply(model)
    secrets = read_requests(requests_, tok)
    for outcome in edits.outcomes:
        context = secrets[outcome.request].context(outcome.position)
        assert rank_and_probability(model, context, outcome.token)[0] >= outcome.asked_rank
    edits.undo(model)
    assert_same_bits(model, before)


@pytest.mark.parametrize("solver", ["exact", "iterative"])
@pytest.mark.parametrize("score", ["hybrid", "rank", "activation", "gradient", "random"])
@pytest.mark.parametrize("filter_", ["top_40", "positive", "none"])
def test_every_published_choice_reaches_its_rank(model, tok, requests_, solver, score, filter_):
    before = snapshot(model)
    grads = [parameter.grad for parameter in model.parameters()]
    hparams = tiny_settings(solver=solver, neuron_score=score, act_filter=filter_, max_tokens=1)
    edits = execute_revs(model, tok, requests_, hparams)
    assert all(outcome.reached and outcome.rank_before < outcome.asked_rank for outcome in edits.outcomes)
    assert_same_bits(model, before)
    assert [parameter.grad for parameter in model.parameters()] == grads


def test_long_prompts_are_cut_at_their_beginning(model, tok, requests_):
    prompt = "w9 " * 20 + requests_[0]["prompt"]
    whole, cut = (read_requests([{"prompt": prompt, "target_new": "w5"}], tok, max_prompt_length=n)[0] for n in (0, 3))
    assert len(whole.prompt_ids) == 23
    assert cut.prompt_ids == whole.prompt_ids[-3:]
    execute_revs(model, tok, [{"prompt": prompt, "target_new": "w5"}], tiny_settings(max_prompt_length=3))


def test_the_hosts_signature(model, tok, requests_, hparams):
    before = snapshot(model)
    edited, original = apply_revs_to_model(model, tok, requests_, hparams, copy=True, return_orig_weights=True)
    assert edited is not model
    assert_same_bits(model, before)
    assert {name: torch.equal(value, before[name]) for name, value in original.items()} == dict.fromkeys(original, True)

    edited, original = apply_revs_to_model(model, tok, requests_, hparams, keep_original_weight=False, train_ds=None)
    assert edited is model
    assert len(original) == 0
    original.edits.undo(model)
    assert_same_bits(model, before)
