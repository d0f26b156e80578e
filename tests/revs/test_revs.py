"""REVS on a tiny model: ranks reached by the smallest step, weights untouched until the edit is applied."""

import logging

import pytest
import torch
from helpers import assert_same_bits, snapshot, tiny_settings

from revs_tars_plugin import apply_revs_to_model, execute_revs
from revs_tars_plugin.edits.trial import TrialEdits
from revs_tars_plugin.model.decoder import Decoder
from revs_tars_plugin.model.forward import next_token_logits
from revs_tars_plugin.requests import read_requests
from revs_tars_plugin.revs.neuron_selection import activation_gradients, select_neurons
from revs_tars_plugin.revs.neuron_steps import (
    ActiveNeurons,
    _share_at_bottom,
    _share_beyond,
    exact_steps,
    iterative_steps,
    needed_step,
    steps_of_neurons,
)
from revs_tars_plugin.revs.neurons import NeuronLocalization
from revs_tars_plugin.revs.targets import RankGoal
from revs_tars_plugin.revs.token_selection import select_positions


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


def test_the_forward_pass_sees_the_edit_as_the_edited_model_does(model, tok, requests_, hparams):
    decoder = Decoder.of(model, hparams)
    secret = read_requests(requests_, tok)[0]
    margins = hparams.ranks(decoder.lens.size)
    seen = []
    handle = model.model.norm.register_forward_hook(lambda _module, _args, output: seen.append(output[0, -1]))
    with TrialEdits() as trial:
        goal = RankGoal(secret.target_ids[0], (secret.context(0),), margins.residual_bottom_rank)
        (parts,) = NeuronLocalization(decoder, margins, hparams, torch.Generator(), trial).demote([goal])
        assert parts.layers > 0
        next_token_logits(model, [secret.context(0)])
    handle.remove()
    next_token_logits(model, [secret.context(0)])
    in_the_pass, edited = seen
    torch.testing.assert_close(in_the_pass, edited, rtol=1e-4, atol=1e-4)


def last_layer(model, tok, requests_, hparams):
    """What the last layer computes for the first token of the first secret."""
    decoder = Decoder.of(model, hparams)
    secret = read_requests(requests_, tok)[0]
    demotion = decoder.lens.demotions(torch.tensor(secret.target_ids[:1]))
    states = {}
    decoder.forward_through_layers([secret.context(0)], states.__setitem__)
    return decoder, demotion, states[2]


def test_one_layer_moves_exactly_as_far_as_its_rank_needs(model, tok, requests_):
    hparams = tiny_settings(mlp_bottom_rank=0)
    decoder, demotion, state = last_layer(model, tok, requests_, hparams)
    margins = hparams.ranks(decoder.lens.size)
    residual, activation = state.residual[0, -1], state.ff2_input[0, -1]
    needed = needed_step(decoder.lens, demotion, residual, state.ff2_output[0, -1], margins)
    neurons = select_neurons(decoder.ff2[2], activation, decoder.lens, demotion, hparams)
    vectors = decoder.ff2[2].neurons(neurons)
    chosen = steps_of_neurons(
        decoder.lens,
        demotion,
        ActiveNeurons(neurons, vectors, activation[neurons]),
        margins,
        needed=needed,
        solver=exact_steps,
    )
    assert chosen.demotion == pytest.approx(needed)
    # Each neuron's step has the sign of its activation, so that all of them demote.
    assert (activation[chosen.indices] * chosen.steps > 0).all()
    moved = float((activation[chosen.indices].double() * chosen.steps.double()).sum())
    for share, reached in ((1.001, True), (0.999, False)):
        vector = residual - share * moved * demotion.directions[0]
        rank = int(decoder.lens.ranks(vector[None], demotion.tokens))
        assert (rank >= margins.residual_bottom_rank) is reached


def test_the_published_search_ends_in_the_same_margin_as_the_exact_step(model, tok, requests_, hparams):
    decoder, demotion, _ = last_layer(model, tok, requests_, hparams)
    vectors = torch.randn(40, 32, generator=torch.Generator().manual_seed(3))
    bottom, top = 100, 160
    above = decoder.lens.ranks(vectors, demotion.tokens.expand(40)) < bottom
    vectors, many = vectors[above], demotion.at([0] * int(above.sum()))
    assert len(vectors) > 10
    exact = exact_steps(decoder.lens, vectors, many, bottom, top)
    searched = iterative_steps(decoder.lens, vectors, many, bottom, top)
    for steps in (exact, searched):
        # In float32 the exact step lies on the edge of the rank; the lines themselves, in float64, decide.
        moved = decoder.lens.logits(vectors).double() - steps[:, None] * many.responses.double()
        ranks = (moved > moved.gather(1, many.tokens[:, None])).sum(-1)
        assert ((ranks >= bottom) & (ranks <= top)).all()
    assert (searched >= exact * (1 - 1e-6)).all()


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


def test_neuron_scores_order_as_they_say(model, tok, requests_):
    decoder, demotion, state = last_layer(model, tok, requests_, tiny_settings())
    ff2, activation, lens = decoder.ff2[2], state.ff2_input[0, -1], decoder.lens

    def select(**changes):
        gradient = torch.linspace(-1, 1, 64)
        settings = tiny_settings(n_neurons=20, **changes)
        return select_neurons(ff2, activation, lens, demotion, settings, gradient=gradient, generator=torch.Generator())

    strongest = activation.abs().argsort(descending=True)
    assert select(neuron_score="activation", act_filter="none").tolist() == strongest[:20].tolist()
    contributions = ff2.neurons(torch.arange(64)) * activation.sign()[:, None]
    ranks = lens.ranks(contributions, demotion.tokens.expand(64))
    assert select(neuron_score="rank").tolist() == ranks.argsort(stable=True)[:20].tolist()
    hybrid = select(neuron_score="hybrid", act_filter="top_25")
    assert set(hybrid.tolist()) <= set(strongest[:25].tolist())
    assert ranks[hybrid].tolist() == sorted(ranks[hybrid].tolist())
    by_gradient = select(neuron_score="gradient", act_filter="none")
    effect = torch.linspace(-1, 1, 64) * activation
    assert by_gradient.tolist() == effect.argsort(descending=True)[:20].tolist()
    assert (activation[select(neuron_score="random", act_filter="positive")] > 0).all()


def test_gradients_are_those_of_finite_differences(model, tok, requests_, hparams):

    decoder = Decoder.of(model, hparams)
    secret = read_requests(requests_, tok)[0]
    context, token = secret.context(0), secret.target_ids[0]
    found = activation_gradients(decoder, context, token)
    for layer, neuron in ((0, 3), (2, 40)):
        values = []
        for shift in (1e-2, -1e-2):

            def moved(_module, args, shift=shift, neuron=neuron):
                inputs = args[0].clone()
                inputs[0, -1, neuron] += shift
                return (inputs,)

            handle = decoder.ff2[layer].module.register_forward_pre_hook(moved)
            with torch.no_grad():
                values.append(float(model(torch.tensor([context])).logits[0, -1].log_softmax(-1)[token]))
            handle.remove()
        assert float(found[layer][neuron]) == pytest.approx((values[0] - values[1]) / 2e-2, rel=3e-2, abs=1e-5)


def test_neurons_share_what_is_needed_in_order():
    bottom, top = torch.tensor([1.0, 2.0, torch.inf, 3.0]).double(), torch.tensor([2.0, 4.0, torch.inf, 3.0]).double()
    strength = torch.tensor([1.0, 0.5, 1.0, 2.0]).double()
    assert _share_at_bottom(0.5, bottom, strength).tolist() == [0.5, 0, 0, 0]
    assert _share_at_bottom(1.5, bottom, strength).tolist() == [1, 1, 0, 0]
    assert _share_at_bottom(8.0, bottom, strength).tolist() == [1, 2, 0, 3]
    assert _share_at_bottom(9.0, bottom, strength) is None
    assert _share_beyond(9.0, bottom, top, strength).tolist() == [1.5, 3, 0, 3]
    assert _share_beyond(99.0, bottom, top, strength).tolist() == [2, 4, 0, 3]


def positions(secret, tok, hparams, surprise=None):
    return select_positions(secret, tok, hparams, torch.Generator().manual_seed(0), surprise)


def test_the_rarest_tokens_are_chosen_in_the_order_of_the_text(tok):
    secret = read_requests([{"prompt": "w1", "target_new": "w90 w3 w150 w120"}], tok)[0]
    assert positions(secret, tok, tiny_settings(max_tokens=2)) == [2, 3]
    assert positions(secret, tok, tiny_settings(max_tokens=9)) == [0, 1, 2, 3]
    assert positions(secret, tok, tiny_settings(skip_tokens=["w150"])) == [0, 3]
    assert positions(secret, tok, tiny_settings(stop_tokens=["w150"])) == [0, 1]


def test_other_choices_of_tokens(tok):
    secret = read_requests([{"prompt": "w1", "target_new": "w90 w3 w150 w120"}], tok)[0]

    def chosen(method, surprise=None, count=1):
        return positions(secret, tok, tiny_settings(token_method=method, max_tokens=count), surprise)

    assert chosen("first", count=2) == [0, 1]
    assert chosen("frequent", count=2) == [0, 1]
    assert chosen("frequent") == [1]
    assert len(chosen("random", count=3)) == 3
    assert chosen("specific", [-1.0, -9.0, -2.0, -3.0]) == [1]
    # Without siblings to ask, the rarest.
    assert chosen("specific") == chosen("rarest") == [2]
    # Given away by what comes before, and not the beginning itself; the rarest of those.
    assert chosen("chained", [0.0, -0.1, -3.0, -0.1]) == [3]
    assert chosen("chained", [-5.0, -5.0, -5.0, -5.0]) == [2]


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
