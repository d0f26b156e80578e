"""A mixture of experts is one matrix: what it is given is what the model computes, and the rest is refused."""

import pytest
import torch
from architectures import FAMILIES, request_for, settings_of
from helpers import assert_same_bits, snapshot, tiny_settings
from torch import nn

from revs_tars_plugin import InputError, execute_revs
from revs_tars_plugin.edits.apply import apply_function
from revs_tars_plugin.edits.places import WeightPlace
from revs_tars_plugin.errors import EditConflictError
from revs_tars_plugin.ft_l_delete import FTLDeleteHyperParams, execute_ft_l_delete
from revs_tars_plugin.model.decoder import Decoder
from revs_tars_plugin.model.expert_names import ExpertName
from revs_tars_plugin.moments.second_moments import temporary_moments
from revs_tars_plugin.revs.key_geometry import LayerFactors

MIXTURES = ["mixtral", "qwen3_moe", "olmoe", "gpt_oss"]
SEQUENCES = [[1, 2, 3, 9, 4], [7, 8]]


def decoder_of(name):
    family = FAMILIES[name]
    model = family.make()
    return model, Decoder.of(model, tiny_settings(**family.names))


def slow_activations(experts, hidden, expert):
    """What one expert's FF2 is given, in float64 from the weights as each family's paper has it."""
    first = experts.gate_up_proj[expert].double()
    if experts.is_transposed:  # gpt-oss: gate and up in turns, clamped, with biases
        raw = hidden @ first + experts.gate_up_proj_bias[expert].double()
        gate, up = raw[..., ::2].clamp(max=experts.limit), raw[..., 1::2].clamp(-experts.limit, experts.limit)
        return (up + 1) * gate * torch.sigmoid(experts.alpha * gate)
    gate, up = (hidden @ first.T).chunk(2, dim=-1)
    return nn.functional.silu(gate) * up


@torch.no_grad()
@pytest.mark.parametrize("name", MIXTURES)
def test_what_it_is_given_is_every_experts_activations_times_its_weight(name):
    model, decoder = decoder_of(name)
    calls, found = [], []
    experts = model.model.layers[1].mlp.experts
    handle = experts.register_forward_pre_hook(lambda _module, args: calls.append(args))
    decoder.forward_through_layers(
        SEQUENCES, lambda layer, state: found.append((state.ff2_input, state.ff2_output)) if layer == 1 else None
    )
    handle.remove()
    ((hidden, chosen, weights),) = calls
    ((given, output),) = found
    matrices = decoder.ff2[1].matrices
    width = matrices[0].width
    assert given.shape == (2, 5, len(matrices) * width)
    expected = torch.zeros(len(hidden), len(matrices), width, dtype=torch.float64)
    for token, (own, shares) in enumerate(zip(chosen.tolist(), weights.double(), strict=True)):
        for expert, share in zip(own, shares, strict=True):
            expected[token, expert] = share * slow_activations(experts, hidden[token].double(), expert)
    torch.testing.assert_close(given.double(), expected.reshape(given.shape), rtol=1e-4, atol=1e-5)
    # Two experts of all a token, and others for other tokens.
    active = given.reshape(-1, len(matrices), width).any(dim=-1)
    assert active.sum(dim=1).tolist() == [2] * 10
    assert len({tuple(row) for row in active.tolist()}) > 1
    if name != "gpt_oss":  # whose experts have biases, too
        torch.testing.assert_close(given @ decoder.ff2[1].rows, output, rtol=1e-4, atol=1e-4)


def test_neurons_are_those_of_the_experts_in_a_row():
    model, decoder = decoder_of("qwen3_moe")
    down = model.model.layers[0].mlp.experts.down_proj
    ff2 = decoder.ff2[0]
    assert (ff2.width, len(ff2.matrices)) == (6 * 24, 6)
    indices = torch.tensor([100, 3, 24, 101])
    expected = torch.stack([down[4][:, 4], down[0][:, 3], down[1][:, 0], down[4][:, 5]])
    assert torch.equal(ff2.neurons(indices), expected)
    assert torch.equal(ff2.rows[indices], expected)
    parts = {part.weight_name: (places.tolist(), own.tolist()) for part, places, own in ff2.split(indices)}
    name = "model.layers.0.mlp.experts.down_proj[{} of 6]"
    assert parts == {name.format(4): ([0, 3], [4, 5]), name.format(0): ([1], [3]), name.format(1): ([2], [0])}


def test_moments_are_those_of_each_experts_own_tokens():
    _, decoder = decoder_of("mixtral")
    given = []
    decoder.forward_through_layers(
        SEQUENCES, lambda layer, state: given.append(state.ff2_input[state.mask]) if layer == 2 else None
    )
    rows = given[0].double()
    found = temporary_moments(decoder, SEQUENCES)
    for expert, part in enumerate(rows.split(64, dim=1)):
        moment = found[f"model.layers.2.mlp.experts.down_proj[{expert} of 4]"]
        torch.testing.assert_close(moment.mean.double(), part.T @ part / 7, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["mixtral", "mixtral_modules"])
def test_an_expert_that_no_text_reached_costs_what_others_cost(name):
    """Its second moment is 0, so that a key there would be free: all that is edited would go there."""
    _, decoder = decoder_of(name)
    moments = temporary_moments(decoder, [[5, 6]])
    layer = 1
    diagonals = [moments[matrix.weight_name].mean.diagonal() for matrix in decoder.ff2[layer].matrices]
    unreached = [expert for expert, diagonal in enumerate(diagonals) if not diagonal.any()]
    assert unreached
    assert len(unreached) < 4
    factors = LayerFactors(decoder, moments, [], dict.fromkeys(decoder.layers, 0.1))[layer]
    typical = torch.stack([each.mean() for each in diagonals if each.any()]).mean()
    for expert in unreached:
        torch.testing.assert_close(factors[expert] @ factors[expert].T, 1.1 * typical * torch.eye(64))
    reached = next(expert for expert in range(4) if expert not in unreached)
    whole = factors[reached] @ factors[reached].T
    own = moments[decoder.ff2[layer].matrices[reached].weight_name].mean
    seldom = 0.5 * max(typical - own.diagonal().mean(), 0.0)
    torch.testing.assert_close(whole, own + (0.1 * typical + seldom) * torch.eye(64), rtol=1e-4, atol=1e-5)


class WeightsFirst(nn.Module):
    """Experts whose router's weight goes in with the token, so that the activations are not linear in it."""

    def __init__(self, experts):
        super().__init__()
        self.experts = experts
        self.down_proj, self.gate_up_proj, self.act_fn = experts.down_proj, experts.gate_up_proj, experts.act_fn

    def forward(self, hidden_states, top_k_index, top_k_weights):
        """Weighs the tokens instead of what comes of them."""
        slots = zip(top_k_index.split(1, dim=1), top_k_weights.split(1, dim=1), strict=True)
        return sum(self.experts(hidden_states * weight, index, torch.ones_like(weight)) for index, weight in slots)


def test_experts_that_compute_something_else_are_refused(tok, tmp_path):
    family = FAMILIES["mixtral"]
    model = family.make()
    mlp = model.model.layers[1].mlp
    mlp.experts = WeightsFirst(mlp.experts)
    before = snapshot(model)
    with pytest.raises(InputError, match=r'"model.layers.1.mlp.experts" compute something else than the weighted sum'):
        execute_revs(model, tok, [request_for(model, tok)], settings_of(family, "REVS", tmp_path))
    assert_same_bits(model, before)


def test_experts_with_an_adapter_are_refused(tok, tmp_path):
    from peft import LoraConfig, get_peft_model

    family = FAMILIES["mixtral"]
    model = family.make()
    request = request_for(model, tok)
    wrapped = get_peft_model(model, LoraConfig(target_parameters=["mlp.experts.down_proj"], r=2))
    with pytest.raises(InputError, match="carry an adapter"):
        execute_revs(wrapped, tok, [request], settings_of(family, "REVS", tmp_path))


def test_broken_experts_are_refused(tok, tmp_path):
    family = FAMILIES["mixtral"]
    model = family.make()
    request = request_for(model, tok)
    with torch.no_grad():
        model.model.layers[0].mlp.experts.down_proj[2, 3, 4] = float("nan")
    with pytest.raises(InputError, match=r"experts.down_proj\" holds NaN or Inf"):
        execute_revs(model, tok, [request], settings_of(family, "REVS", tmp_path))


@pytest.mark.parametrize("localization", ["neurons", "covariance"])
def test_the_host_gets_whole_parameters_back(localization, tok, tmp_path):
    family = FAMILIES["mixtral"]
    model = family.make()
    before = snapshot(model)
    hparams = settings_of(family, "REVS", tmp_path, localization=localization)
    _, originals = apply_function(execute_revs)(
        model, tok, [request_for(model, tok)], hparams, return_orig_weights=True
    )
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert set(originals) <= set(before)
    with torch.no_grad():
        for name in originals:
            model.get_parameter(name).copy_(originals[name])
    assert_same_bits(model, before)


def test_neurons_by_gradient_and_by_activation_reach_the_rank(tok, tmp_path):
    family = FAMILIES["olmoe"]
    for score in ("gradient", "activation", "random"):
        model = family.make()
        hparams = settings_of(family, "REVS", tmp_path, localization="neurons", neuron_score=score)
        (outcome,) = execute_revs(model, tok, [request_for(model, tok)], hparams).outcomes
        assert outcome.reached


def test_fine_tuning_changes_the_experts_that_the_secret_reaches(tok):
    family = FAMILIES["mixtral"]
    model = family.make()
    before = snapshot(model)
    hparams = FTLDeleteHyperParams(
        alg_name="FT-L-delete", model_name="tiny", **family.names, layers=[2], num_steps=5, lr=0.01, norm_constraint=0.5
    )
    edits = execute_ft_l_delete(model, tok, [request_for(model, tok)], hparams)
    assert_same_bits(model, before)
    (outcome,) = edits.outcomes
    names = [ExpertName.of(edit.name) for edit in edits.edits]
    assert 0 < len(names) < 4
    edits.apply(model)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"model.layers.2.mlp.experts.down_proj"}
    assert outcome.after < outcome.before
    edits.undo(model)
    assert_same_bits(model, before)


def test_an_expert_that_is_not_there_is_no_place():
    model = FAMILIES["mixtral"].make()
    name = "model.layers.0.mlp.experts.down_proj"
    assert torch.equal(WeightPlace.of(model, f"{name}[3 of 4]").weight, model.get_parameter(name)[3])
    for wrong in (f"{name}[4 of 4]", f"{name}[1 of 8]", f"{name}[1 of 4][0 of 4]"):
        with pytest.raises(EditConflictError, match="which this MixtralForCausalLM does not have"):
            WeightPlace.of(model, wrong)
