"""Rounded weights: by hand, and back to the bit."""

import pytest
import torch
from helpers import assert_same_bits, snapshot
from transformers import GPT2Config, GPT2LMHeadModel

from revs_tars_plugin import InputError
from revs_tars_plugin.evaluation import (
    quantized,
)
from revs_tars_plugin.evaluation.quantization import rounded, rounded_to_normal_float


def test_rounding_by_hand():
    weight = torch.tensor([[3.0, -1.4, 0.4], [0.0, 0.0, 0.0], [-0.3, 0.1, 0.04]])
    # 3 bits: levels -3..3 of a third of the row's largest.
    expected = torch.tensor([[3.0, -1.0, 0.0], [0.0, 0.0, 0.0], [-0.3, 0.1, 0.0]])
    torch.testing.assert_close(rounded(weight, 3), expected)
    torch.testing.assert_close(rounded(weight.T, 3, channel_dim=1), expected.T)
    with pytest.raises(InputError, match="bits is 16"):
        rounded(weight, 16)


def test_rounding_to_normal_float_by_hand():
    # A scale for each two weights; beside 1 and -1 the levels next to 0.3 and -0.6 of the scale.
    weight = torch.tensor([[2.0, 0.6, -4.0, -2.4], [0.0, 0.0, 1.0, 0.04]])
    expected = torch.tensor([[2.0, 2 * 0.3379152, -4.0, 4 * -0.5250731], [0.0, 0.0, 1.0, 0.0795803]])
    torch.testing.assert_close(rounded_to_normal_float(weight, block=2), expected)
    torch.testing.assert_close(rounded_to_normal_float(weight.T, block=2, channel_dim=1), expected.T)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_quantization_rounds_and_restores_to_the_bit(model, kind):
    if kind == "conv":
        model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=16)).eval()
    before = snapshot(model)
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        logits = model(ids).logits
        distances = []
        for bits in (8, 4):
            with quantized(model, bits):
                distances.append(float((model(ids).logits - logits).abs().mean()))
                changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
            assert_same_bits(model, before)
    assert 0 < distances[0] < distances[1] / 4
    assert all("embed" not in name and "lm_head" not in name and "wte" not in name for name in changed)
    with pytest.raises(InputError), quantized(model, 1):
        pass
    assert_same_bits(model, before)
