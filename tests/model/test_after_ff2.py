"""What stands between FF2 and the residual space is found, exact steps go through it, and all else is refused."""

import copy

import pytest
import torch
from architectures import FAMILIES, request_for
from helpers import assert_same_bits, snapshot, tiny_settings, tiny_tars

from revs_tars_plugin import InputError, execute_revs, execute_tars
from revs_tars_plugin.model.after_ff2 import within_reach
from revs_tars_plugin.model.decoder import Decoder

IDS = [3, 17, 5, 40]
LAYER = 2


def decoder_of(name):
    family = FAMILIES[name]
    return Decoder.of(family.make(), tiny_settings(**family.names))


def last_state(decoder, layer=LAYER):
    states = {}
    decoder.forward_through_layers([IDS], states.__setitem__)
    return states[layer]


def said_after(decoder, shift, layer=LAYER):
    """The oracle: the model itself in float64, with FF2's output shifted at the last position."""
    model = copy.deepcopy(decoder.model).double()

    def move(_module, _args, output):
        moved = output.clone()
        moved[0, -1] -= shift.double()
        return moved

    handle = model.get_submodule(decoder.ff2[layer].name).register_forward_hook(move)
    with torch.no_grad():
        logits = model(torch.tensor([IDS])).logits[0, -1]
    handle.remove()
    return logits


@pytest.mark.parametrize(
    ("name", "normed", "scaled"),
    [
        ("llama", False, False),
        ("gpt2", False, False),
        ("granite", False, True),
        ("gemma2", True, True),
        ("gemma3", True, True),
        ("olmo2", True, True),
    ],
)
def test_what_stands_there_is_found(name, normed, scaled):
    decoder = decoder_of(name)
    for after in decoder.after_ff2.values():
        assert (after.epsilon is not None) == normed
        assert (after.gain is not None) == scaled
    if name == "granite":
        torch.testing.assert_close(decoder.after_ff2[0].gain, torch.full((32,), 0.3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["llama", "granite", "gemma2", "gemma3", "olmo2"])
def test_a_change_of_the_output_changes_the_residual_as_said(name):
    decoder = decoder_of(name)
    before = last_state(decoder, 1)
    change = torch.randn(1, len(IDS), 32)
    handle = decoder.ff2[1].module.register_forward_hook(lambda _module, _args, output: output + change, prepend=True)
    after = last_state(decoder, 1)
    handle.remove()
    said = decoder.after_ff2[1].change(before.ff2_output, change)
    torch.testing.assert_close(after.residual - before.residual, said, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["llama", "granite", "gemma2", "gemma3", "olmo2"])
@pytest.mark.parametrize("ridge", [0.0, 0.2])
@pytest.mark.parametrize("rank", [1, 12])
def test_the_asked_rank_is_reached_and_a_smaller_step_misses_it(name, rank, ridge):
    decoder = decoder_of(name)
    state, after = last_state(decoder), decoder.after_ff2[LAYER]
    token = int(said_after(decoder, torch.zeros(32)).argmax())
    demotions = decoder.lens.demotions(torch.tensor([token]), ridge=ridge, gain=after.gain)
    residual, output = state.residual[0, -1:], state.ff2_output[0, -1:]
    branches = after.branches(residual, output, demotions.directions)
    assert (branches is None) == (after.epsilon is None)
    step = float(decoder.lens.steps_to_rank(residual, demotions, rank, branches=branches))
    direction = after.before(demotions.directions)[0]

    def rank_at(share):
        logits = said_after(decoder, share * step * direction)
        return int((logits > logits[token]).sum())

    assert rank_at(1.0) >= rank
    assert rank_at(0.999) < rank
    assert rank_at(0) == 0


@pytest.mark.parametrize("name", ["llama", "granite", "gemma2", "gemma3", "olmo2"])
def test_the_asked_probability_is_reached_and_a_smaller_step_misses_it(name):
    decoder = decoder_of(name)
    state, after = last_state(decoder), decoder.after_ff2[LAYER]
    before = said_after(decoder, torch.zeros(32)).log_softmax(-1)
    token = int(before.argmax())
    asked = float(before[token]) - 0.4
    demotions = decoder.lens.demotions(torch.tensor([token]), [[7, 8, 9]])
    residual, output = state.residual[0, -1:], state.ff2_output[0, -1:]
    branches = after.branches(residual, output, demotions.directions)
    step = decoder.lens.steps_to_log_probability(residual, demotions, torch.tensor([asked]), branches)
    direction = after.before(demotions.directions)[0]

    def value_at(share):
        return float(said_after(decoder, share * float(step) * direction).log_softmax(-1)[token])

    assert asked - 0.004 < value_at(1.0) <= asked + 1e-4
    assert value_at(0.97) > asked


def test_a_rank_behind_a_norm_that_no_step_reaches_is_no_step():
    decoder = decoder_of("olmo2")
    with torch.no_grad():
        decoder.model.model.layers[LAYER].post_feedforward_layernorm.weight.mul_(1e-4)
    decoder = Decoder.of(decoder.model, tiny_settings(**FAMILIES["olmo2"].names))
    state = last_state(decoder)
    token = int(said_after(decoder, torch.zeros(32)).argmax())
    demotions = decoder.lens.demotions(torch.tensor([token]))
    residual, output = state.residual[0, -1:], state.ff2_output[0, -1:]
    branches = decoder.after_ff2[LAYER].branches(residual, output, demotions.directions)
    steps = decoder.lens.steps_to_rank(residual, demotions, 20, branches=branches)
    assert steps.isinf().all()
    assert torch.equal(within_reach(steps, branches), branches.typical)
    assert torch.equal(within_reach(steps, None), torch.zeros(1, dtype=torch.float64))


@pytest.mark.parametrize(
    ("between", "said"),
    [
        (torch.nn.Tanh(), 'Layer 0 does not add the output of "model.layers.0.mlp.down_proj"'),
        (torch.nn.LayerNorm(32), "takes off the mean, so this LlamaForCausalLM cannot be edited exactly"),
    ],
)
def test_anything_else_is_refused(between, said, tok):
    model = FAMILIES["llama"].make()
    for layer in model.model.layers:
        layer.mlp = torch.nn.Sequential(layer.mlp, copy.deepcopy(between))
    names = {
        "rewrite_module_tmp": "model.layers.{}.mlp.0.down_proj",
        "mlp_module_tmp": "model.layers.{}.mlp",
    }
    said = said.replace("mlp.down_proj", "mlp.0.down_proj")
    before = snapshot(model)
    for execute, settings in (
        (execute_revs, tiny_settings(**names)),
        (execute_tars, tiny_tars(**names, matrices=["down"])),
    ):
        with pytest.raises(InputError, match=said):
            execute(model, tok, [request_for(model, tok)], settings)
        assert_same_bits(model, before)


def test_a_matrix_without_effect_is_refused(tok):
    model = FAMILIES["llama"].make()

    class Nothing(torch.nn.Module):
        def forward(self, hidden):
            return hidden * 0

    for layer in model.model.layers:
        layer.mlp = torch.nn.Sequential(layer.mlp, Nothing())
    names = {"rewrite_module_tmp": "model.layers.{}.mlp.0.down_proj", "mlp_module_tmp": "model.layers.{}.mlp"}
    with pytest.raises(InputError, match="Layer 0 does not add the output"):
        execute_revs(model, tok, [request_for(model, tok)], tiny_settings(**names))


def test_many_rows_behind_a_norm_are_those_of_each():
    decoder = decoder_of("gemma3")
    state, after = last_state(decoder), decoder.after_ff2[LAYER]
    demotions = decoder.lens.demotions(torch.arange(70) + 20)
    picks = torch.arange(70) % len(IDS)
    residual, output = state.residual[0, picks], state.ff2_output[0, picks]
    branches = after.branches(residual, output, demotions.directions)
    together = decoder.lens.steps_to_rank(residual, demotions, 30, branches=branches)
    asked = torch.full((70,), -7.0)
    by_level = decoder.lens.steps_to_log_probability(residual, demotions, asked, branches)
    for row in (0, 33, 64, 69):
        one, alone = torch.tensor([row]), demotions.at([row])
        step = decoder.lens.steps_to_rank(residual[one], alone, 30, branches=branches.at(one))
        torch.testing.assert_close(step, together[one], rtol=1e-4, atol=1e-6)
        step = decoder.lens.steps_to_log_probability(residual[one], alone, asked[one], branches.at(one))
        torch.testing.assert_close(step, by_level[one], rtol=1e-2, atol=1e-4)
