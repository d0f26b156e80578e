"""Experts that are modules of their own: what each token gives to which is read off the block, whatever its code."""

import copy

import pytest
import torch
from architectures import FAMILIES, request_for, settings_of
from expert_blocks import with_modules
from helpers import assert_same_bits, snapshot, tiny_settings
from packing import rank_after
from torch import nn

from revs_tars_plugin import InputError, execute_revs
from revs_tars_plugin.ft_l_delete import FTLDeleteHyperParams, execute_ft_l_delete
from revs_tars_plugin.model.decoder import Decoder

SEQUENCES = [[1, 2, 3, 9, 4], [7, 8]]
FAMILY = FAMILIES["mixtral_modules"]


def read(model, names):
    """What FF2 of every layer is given and gives."""
    decoder = Decoder.of(model, tiny_settings(**names))
    found = {}
    decoder.forward_through_layers(
        SEQUENCES, lambda layer, state: found.update({layer: (state.ff2_input, state.ff2_output)})
    )
    return decoder, found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_they_are_given_what_fused_experts_are_given(dtype):
    fused = FAMILIES["mixtral"].make().to(dtype)
    _, expected = read(fused, FAMILIES["mixtral"].names)
    decoder, found = read(with_modules(copy.deepcopy(fused)), FAMILY.names)
    assert found.keys() == expected.keys()
    scale = 1e-5 if dtype == torch.float32 else 0.05
    for layer, (given, output) in expected.items():
        assert given.any()
        torch.testing.assert_close(found[layer][0], given, rtol=scale, atol=scale)
        torch.testing.assert_close(found[layer][1], output, rtol=scale, atol=scale * 4)
    names = [matrix.weight_name for matrix in decoder.ff2[1].matrices]
    assert names == [f"model.layers.1.block_sparse_moe.experts.{number}.w2.weight" for number in range(4)]


def test_many_tokens_are_told_apart():
    """Their numbers are written in base 2, so that half precision can hold them."""
    model = FAMILY.make().to(torch.bfloat16)
    decoder = Decoder.of(model, tiny_settings(**FAMILY.names))
    sequences = [[(7 * row + 3 * place) % 190 + 3 for place in range(60)] for row in range(12)]
    alone, together = [], []
    for given, batch in ((alone, [[row] for row in sequences]), (together, [sequences])):
        for rows in batch:
            decoder.forward_through_layers(
                rows, lambda layer, state, given=given: given.append(state.ff2_input) if layer == 0 else None
            )
    torch.testing.assert_close(torch.cat(together), torch.cat(alone), rtol=0.05, atol=0.05)


def changed_block(model, change):
    block = model.model.layers[1].block_sparse_moe
    change(block)
    return model


def share(block):
    """An expert that all tokens use, beside those that are chosen."""
    block.shared = nn.Linear(32, 32)


def scale(block):
    """A factor on what all experts give together."""
    forward = block.forward
    block.forward = lambda hidden_states: 0.3 * forward(hidden_states)


def answer_in_a_tuple(block):
    """Something beside what is written, as the router's logits, which the layer takes apart."""
    inner = block.forward
    block.forward = lambda hidden_states: (inner(hidden_states), hidden_states)


def go_on_in_place(block):
    """What an expert gives is weighed where it stands."""
    for expert in block.experts:
        expert.register_forward_hook(lambda _module, _args, output: output.mul_(1.5))


@pytest.mark.parametrize("change", [share, scale, answer_in_a_tuple, go_on_in_place])
def test_whatever_else_the_block_does_the_rank_is_reached(change, tok, tmp_path):
    model = changed_block(FAMILY.make(), change)
    before = snapshot(model)
    request = request_for(model, tok)
    for localization in ("neurons", "covariance"):
        settings = settings_of(FAMILY, "REVS", tmp_path, layers=[1], localization=localization)
        edits = execute_revs(model, tok, [request], settings)
        assert_same_bits(model, before)
        (outcome,) = edits.outcomes
        edits.apply(model)
        with torch.no_grad():
            logits = model(tok(request["prompt"], return_tensors="pt").input_ids).logits[0, -1]
        said = tok(" " + request["target_new"].strip(), add_special_tokens=False)["input_ids"][0]
        assert int((logits > logits[said]).sum()) == outcome.rank_after > 0
        edits.undo(model)
        assert_same_bits(model, before)


def bend(block):
    """What comes of the experts is no sum any more."""
    forward = block.forward
    block.forward = lambda hidden_states: forward(hidden_states).sinh()


def without_derivative(block):
    block.forward = torch.no_grad()(block.forward)


def two_that_write(block):
    block.experts[2].w4 = nn.Linear(64, 32)
    block.experts[2].w2, block.experts[2].second = nn.Linear(64, 32), block.experts[2].w2


def another_width(block):
    block.experts[2].w2 = nn.Linear(48, 32)


def not_as_modules(block):
    """The matrices are used and never called."""
    for expert in block.experts:
        expert.forward = lambda hidden, own=expert: nn.functional.linear(
            nn.functional.silu(own.w1(hidden)) * own.w3(hidden), own.w2.weight
        )


def without_second(block):
    block.experts[0] = nn.Linear(7, 8)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (bend, r'"model.layers.1.block_sparse_moe.experts" compute something else than the weighted sum'),
        (without_derivative, "cannot be told: the block around them has no derivative"),
        (another_width, "where experts of one width must stand"),
        (not_as_modules, "compute something else than the weighted sum"),
        (without_second, r'of "model.layers.1.block_sparse_moe.experts.0" it cannot be told which matrix writes'),
    ],
)
def test_experts_that_cannot_be_edited_are_refused(spoil, message, tok, tmp_path):
    model = FAMILY.make()
    request = request_for(model, tok)
    changed_block(model, spoil)
    before = snapshot(model)
    with pytest.raises(InputError, match=message):
        execute_revs(model, tok, [request], settings_of(FAMILY, "REVS", tmp_path))
    assert_same_bits(model, before)


def test_the_name_tells_where_shapes_do_not():
    model = changed_block(FAMILY.make(), two_that_write)
    names = [matrix.weight_name for matrix in Decoder.of(model, tiny_settings(**FAMILY.names)).ff2[1].matrices]
    assert names[2] == "model.layers.1.block_sparse_moe.experts.2.w2.weight"


def test_adapters_on_experts_stay_in_place(tok, tmp_path):
    from peft import LoraConfig, get_peft_model

    model = FAMILY.make()
    wrapped = get_peft_model(
        model, LoraConfig(target_modules=r".*experts\.\d+\.w2", r=2, init_lora_weights=False)
    ).eval()
    request = request_for(wrapped, tok)
    adapter = {name: value.clone() for name, value in wrapped.state_dict().items() if "lora" in name}
    edits = execute_revs(wrapped, tok, [request], settings_of(FAMILY, "REVS", tmp_path))
    assert edits.outcomes[0].reached
    edits.apply(wrapped)
    token = tok(request["target_new"]).input_ids[0]
    assert rank_after(wrapped, tok, request["prompt"], token) == edits.outcomes[0].rank_after
    assert all(torch.equal(value, wrapped.state_dict()[name]) for name, value in adapter.items())
    with wrapped.disable_adapter():
        assert rank_after(wrapped, tok, request["prompt"], token) != edits.outcomes[0].rank_after


def test_packed_experts_are_refused(tok, tmp_path):
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = FAMILY.make()
    request = request_for(model, tok)
    quantize_(model, Int8WeightOnlyConfig(), lambda module, name: isinstance(module, nn.Linear) and ".w2" in name)
    with pytest.raises(InputError, match="experts whose weights are packed"):
        execute_revs(model, tok, [request], settings_of(FAMILY, "REVS", tmp_path))


def test_fine_tuning_changes_the_experts_that_the_secret_reaches(tok):
    model = FAMILY.make()
    before = snapshot(model)
    hparams = FTLDeleteHyperParams(
        alg_name="FT-L-delete", model_name="tiny", **FAMILY.names, layers=[2], num_steps=5, lr=0.01, norm_constraint=0.5
    )
    edits = execute_ft_l_delete(model, tok, [request_for(model, tok)], hparams)
    assert_same_bits(model, before)
    names = {edit.name for edit in edits.edits}
    assert 0 < len(names) < 4
    edits.apply(model)
    assert {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])} == names
    edits.undo(model)
    assert_same_bits(model, before)


def linear_experts(block):
    """Each expert is one matrix by itself."""
    block.experts = nn.ModuleList(nn.Linear(32, 32) for _ in block.experts)


def test_an_expert_may_be_its_own_matrix(tok, tmp_path):
    model = FAMILY.make()
    for layer in model.model.layers:
        linear_experts(layer.block_sparse_moe)
    request = request_for(model, tok)
    edits = execute_revs(model, tok, [request], settings_of(FAMILY, "REVS", tmp_path))
    names = dict(model.named_parameters())
    assert edits.outcomes[0].reached
    assert {edit.name for edit in edits.edits} <= set(names)
    edits.apply(model)
    assert request_for(model, tok)["target_new"] != request["target_new"]
