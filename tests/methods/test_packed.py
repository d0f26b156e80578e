"""Packed weights: asked ranks are reached with the edit beside them, and not one of their bits moves."""

import pytest
import torch
from architectures import FAMILIES, request_for, said, settings_of
from helpers import assert_same_bits, copy_of, snapshot
from packing import bits, packed_model, rank_after, saved
from peft import PeftModel
from torch import nn

from revs_tars_plugin import EditSet, InputError, execute_revs, execute_tars
from revs_tars_plugin.errors import EditConflictError
from revs_tars_plugin.ft_l_delete import FTLDeleteHyperParams, execute_ft_l_delete
from revs_tars_plugin.model.forward import next_token_logits
from revs_tars_plugin.model.packed import SpreadLinear, is_packed, spread_out, unpacked

KINDS = ["NF4", "int8", "torchao int8", "torchao int4"]
FF2 = "model.layers.{}.mlp.down_proj"


@pytest.fixture
def base(tmp_path):
    """A small model and its folder."""
    return saved(tmp_path / "base")


def scaled(model):
    """Another model of the same shape."""
    for layer in range(3):
        inner = model.get_submodule(FF2.format(layer))
        inner.register_forward_hook(lambda _module, _args, output: 2 * output)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_module_multiplies_with_is_read_off_it(kind, base):
    model = packed_model(kind, base)
    module = model.get_submodule(FF2.format(1))
    assert is_packed(module)
    assert not is_packed(base[0].get_submodule(FF2.format(1)))
    weight = spread_out(module, "ff2", torch.float32)
    original = base[0].get_submodule(FF2.format(1)).weight.detach()
    assert weight.shape == original.shape
    rounding = float((weight - original).norm() / original.norm())
    assert 1e-4 < rounding < (0.02 if kind.endswith("int8") else 0.15)
    inputs = torch.randn(1, 6, 128)
    with torch.no_grad():
        expected = module(inputs)
    assert float((inputs @ weight.T - expected).norm()) < 0.02 * float(expected.norm())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("localization", ["neurons", "covariance"])
def test_the_asked_rank_is_reached_with_the_adapter_beside_it(kind, localization, base, tok, tmp_path):
    model = packed_model(kind, base)
    before = bits(model)
    request, token = request_for(model, tok), said(model, tok)
    settings = settings_of(FAMILIES["llama"], "REVS", tmp_path, localization=localization)
    edits = execute_revs(model, tok, [request], settings)
    assert bits(model) == before
    assert edits.packed
    assert edits.outcomes[0].reached
    edits.save(tmp_path / "edit.safetensors")
    loaded = EditSet.load(tmp_path / "edit.safetensors")
    assert loaded.packed
    with pytest.raises(EditConflictError, match="is packed, so no edit can be written into it"):
        loaded.apply(model)
    with pytest.raises(EditConflictError, match="differs from the one"):
        loaded.apply_beside(scaled(packed_model(kind, base)))
    # Measured in memory, and undone.
    loaded.apply_beside(model)
    assert rank_after(model, tok, request["prompt"], token) == edits.outcomes[0].rank_after >= 40
    loaded.undo(model)
    assert rank_after(model, tok, request["prompt"], token) == 0
    inside = {name.replace(".packed", ""): value for name, value in bits(model).items() if ".packed" in name}
    assert inside
    assert inside.items() <= before.items()
    # As an adapter on the model as it comes.
    again = packed_model(kind, base)
    loaded.to_peft(tmp_path / "adapter")
    wrapped = PeftModel.from_pretrained(again, tmp_path / "adapter")
    assert rank_after(wrapped, tok, request["prompt"], token) >= 40
    with wrapped.disable_adapter():
        assert rank_after(wrapped, tok, request["prompt"], token) == 0


def test_tars_lowers_a_concept_of_a_packed_model(base, tok, tmp_path):
    model = packed_model("NF4", base)
    before = bits(model)
    settings = settings_of(
        FAMILIES["llama"],
        "TARS",
        tmp_path,
        refine="whitened",
        min_probability=0.001,
        goal_probability=0.0005,
        matrices=["up"],
    )
    edits = execute_tars(model, tok, [request_for(model, tok)], settings)
    assert bits(model) == before
    (outcome,) = edits.outcomes
    assert max(outcome.after) < 0.7 * max(outcome.before)
    token, prompt = said(model, tok), request_for(model, tok)["prompt"]
    edits.apply_beside(model)
    assert rank_after(model, tok, prompt, token) > 0
    edits.undo(model)
    assert rank_after(model, tok, prompt, token) == 0


def test_facts_behind_a_name_go_out_of_a_packed_model(base, tok, tmp_path):
    model = packed_model("NF4", base)
    before = bits(model)
    own = {"directions": ["from_name"], "spelling_layer": 1, "min_probability": 1e-9, "goal_probability": 1e-12}
    settings = settings_of(FAMILIES["llama"], "TARS", tmp_path, matrices=["down"], **own)
    request = request_for(model, tok)
    name = [tok(f"w9 w8 {request['target_new'].strip()}")["input_ids"]]
    behind = next_token_logits(model, name)
    edits = execute_tars(model, tok, [request], settings)
    assert bits(model) == before
    assert edits.outcomes[0].detectors == 1
    edits.apply_beside(model)
    assert float((next_token_logits(model, name) - behind).abs().max()) > 1e-3
    edits.undo(model)
    torch.testing.assert_close(next_token_logits(model, name), behind)


def test_the_same_change_goes_into_the_unpacked_model(base, tok, tmp_path):
    model, full = packed_model("NF4", base), base[0]
    before = snapshot(full)
    request, token = request_for(model, tok), said(model, tok)
    for localization in ("neurons", "covariance"):
        settings = settings_of(FAMILIES["llama"], "REVS", tmp_path, localization=localization)
        edits = execute_revs(model, tok, [request], settings)
        with pytest.raises(EditConflictError):
            edits.apply(full)
        moved = edits.onto(full)
        assert_same_bits(full, before)
        assert not moved.packed
        first = rank_after(full, tok, request["prompt"], token)
        moved.apply(full)
        assert rank_after(full, tok, request["prompt"], token) >= first + 20
        moved.undo(full)
        assert_same_bits(full, before)
    with pytest.raises(EditConflictError, match="has another shape"):
        edits.onto(FAMILIES["llama"].make())


def test_other_methods_say_that_they_cannot(base, tok):
    model = packed_model("int8", base)
    hparams = FTLDeleteHyperParams(alg_name="FT-L-delete", model_name="tiny", **FAMILIES["llama"].names, layers=[2])
    with pytest.raises(InputError, match="is packed: REVS and TARS edit such a model"):
        execute_ft_l_delete(model, tok, [request_for(model, tok)], hparams)


class Crooked(nn.Module):
    """Says that it is a linear map, and is none."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.in_features, self.out_features = inner, inner.in_features, inner.out_features

    def forward(self, inputs):
        """Bends what it is given."""
        return self.inner(inputs).sinh()


def test_what_is_no_linear_map_is_refused_and_everything_is_put_back(base, tok, tmp_path):
    model = copy_of(base[0])
    request = request_for(model, tok)
    model.model.layers[1].mlp.down_proj = Crooked(model.model.layers[1].mlp.down_proj)
    with pytest.raises(InputError, match=r'"model.layers.1.mlp.down_proj" is no product with a weight'):
        execute_revs(model, tok, [request], settings_of(FAMILIES["llama"], "REVS", tmp_path))
    packed = packed_model("NF4", base)
    with pytest.raises(KeyboardInterrupt), unpacked(packed, [FF2], []) as any_packed:
        assert any_packed
        assert isinstance(packed.get_submodule(FF2.format(0)), SpreadLinear)
        raise KeyboardInterrupt
    assert not any(isinstance(module, SpreadLinear) for module in packed.modules())


@pytest.mark.parametrize("kind", ["NF4", "int8", "torchao int8"])
@torch.no_grad()
def test_a_bias_is_no_part_of_the_weight(kind, base):
    module = packed_model(kind, base).get_submodule(FF2.format(1))
    plain = spread_out(module, "ff2", torch.float32)
    module.bias = nn.Parameter(torch.randn(64))
    weight = spread_out(module, "ff2", torch.float32)
    assert float((weight - plain).norm()) < 0.02 * float(plain.norm())
    spread = SpreadLinear(module, weight)
    inputs = torch.randn(1, 6, 128)
    expected = module(inputs)
    assert torch.equal(spread(inputs), expected)
    spread.weight.add_(0.1)
    added = spread(inputs) - expected
    torch.testing.assert_close(added, (0.1 * inputs.sum(dim=-1, keepdim=True)).expand_as(added), atol=0.02, rtol=0.02)
