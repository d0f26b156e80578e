"""What cannot be edited is refused with one sentence, and every weight stays as it was."""

import random
import re

import pytest
import torch
from helpers import assert_same_bits, snapshot, tiny_settings
from torch import nn

from revs_tars_plugin import InputError, apply_revs_to_model, execute_revs
from revs_tars_plugin.model.decoder import Decoder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rewrite_module_tmp": "model.layers.{}.mlp.downproj"},
            'rewrite_module_tmp names "model.layers.0.mlp.downproj", which this LlamaForCausalLM does not have; '
            'did you mean "model.layers.0.mlp.down_proj"?',
        ),
        ({"layer_module_tmp": "transformer.h.{}"}, 'layer_module_tmp names "transformer.h.0"'),
        ({"ln_f_module": "model.nor"}, 'did you mean "model.norm"?'),
        ({"lm_head_module": "head"}, 'lm_head_module names "head"'),
        ({"rewrite_module_tmp": "model.layers.{}.mlp.up_proj"}, "must write into the residual space of width 32"),
        ({"rewrite_module_tmp": "model.layers.{}.mlp"}, "without a weight"),
        ({"ln_f_module": "model.layers.0.mlp.up_proj"}, "no norm with one gain"),
        ({"layers": [7]}, "layers names layer 7, but the model has layers 0 to 2"),
        ({"n_neurons": 65, "act_filter": "top_100"}, "n_neurons is 65, but FF2 has only 64 neurons"),
        ({"residual_top_rank": 201}, "beyond the vocabulary"),
    ],
)
def test_settings_that_do_not_fit_the_model(model, tok, requests_, changes, message):
    before = snapshot(model)
    with pytest.raises(InputError, match=re.escape(message)):
        execute_revs(model, tok, requests_, tiny_settings(**changes))
    assert_same_bits(model, before)


def test_settings_changed_after_loading_are_checked_again(model, tok, requests_, hparams):
    hparams.n_neurons = 0
    with pytest.raises(InputError, match="n_neurons is 0"):
        execute_revs(model, tok, requests_, hparams)


@pytest.mark.parametrize(
    "request_", [{"prompt": "", "target_new": "w1"}, {"prompt": "w1"}, {"prompt": "w1 " * 70, "target_new": "w2"}]
)
def test_a_bad_request_behind_a_good_one_changes_nothing(model, tok, requests_, hparams, request_):
    before = snapshot(model)
    with pytest.raises(InputError, match="Request 2"):
        apply_revs_to_model(model, tok, [*requests_, request_], hparams)
    assert_same_bits(model, before)


@pytest.mark.parametrize(
    "name", ["lm_head", "model.norm", "model.layers.1.mlp.down_proj", "model.layers.0.mlp.up_proj"]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights(model, tok, requests_, hparams, name, value):
    with torch.no_grad():
        model.get_submodule(name).weight.view(-1)[5] = value
    before = snapshot(model)
    with pytest.raises(InputError, match="NaN or Inf"):
        execute_revs(model, tok, requests_, hparams)
    assert_same_bits(model, before)


def test_weights_without_values(model, tok, requests_, hparams):
    model.model.layers[1].mlp.down_proj.to("meta")
    with pytest.raises(InputError, match="meta device"):
        execute_revs(model, tok, requests_, hparams)


def test_packed_weights(model, tok, requests_, hparams):
    packed = nn.Parameter(torch.zeros(1024, 1, dtype=torch.uint8), requires_grad=False)
    model.model.layers[1].mlp.down_proj.weight = packed
    with pytest.raises(InputError, match=r'packed module "model.layers.1.mlp.down_proj" cannot be run by itself'):
        execute_revs(model, tok, requests_, hparams)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_breaking_off_at_any_moment_leaves_the_weights_alone(model, tok, requests_, hparams, monkeypatch, error):
    """The edit is interrupted at a random layer of a random pass, twenty times."""
    before = snapshot(model)
    generator = random.Random(0)
    original = Decoder.forward_through_layers
    broken_off = 0
    for _ in range(20):
        countdown = generator.randrange(1, 13)

        def breaks(self, ids, visit):
            def count(layer, state):
                nonlocal countdown
                change = visit(layer, state)
                countdown -= 1
                if not countdown:
                    raise error
                return change

            return original(self, ids, count)

        monkeypatch.setattr(Decoder, "forward_through_layers", breaks)
        try:
            apply_revs_to_model(model, tok, requests_, hparams)
        except error:
            broken_off += 1
        assert_same_bits(model, before)
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert broken_off == 20
