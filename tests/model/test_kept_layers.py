"""Passes that skip the lower layers give what whole passes give, and compute the lower layers once."""

import pytest
import torch
from helpers import assert_same_bits, snapshot

from revs_tars_plugin.model.decoder import Decoder
from revs_tars_plugin.model.forward import continuation_logits, selected_logits
from revs_tars_plugin.model.kept_layers import lower_layers_kept

SEQUENCES = [[1, 2, 3, 4], [5, 6, 7]]
PICKS = [(0, 3), (1, 2)]


@pytest.fixture
def decoder(model, hparams):
    hparams.layers = [2]
    return Decoder.of(model, hparams)


@pytest.fixture
def counted(decoder):
    """How often each layer ran."""
    counts = [0] * decoder.n_layers
    for number, module in enumerate(decoder.layer_modules):

        def count(_module, _arguments, number=number):
            counts[number] += 1

        module.self_attn.register_forward_pre_hook(count)
    return counts


def test_the_second_pass_runs_the_upper_layers_alone_with_the_same_outcome(decoder, counted):
    expected = selected_logits(decoder.model, SEQUENCES, PICKS)
    counted[:] = [0] * len(counted)
    with lower_layers_kept(decoder):
        for _ in range(3):
            assert torch.equal(selected_logits(decoder.model, SEQUENCES, PICKS), expected)
    assert counted == [1, 1, 3]
    # Afterwards every layer runs again, as itself.
    assert torch.equal(selected_logits(decoder.model, SEQUENCES, PICKS), expected)
    assert counted == [2, 2, 4]
    assert not any("forward" in vars(module) for module in decoder.layer_modules)


def test_an_edit_above_is_seen_and_another_text_is_read_whole(decoder, counted):
    before = snapshot(decoder.model)
    with torch.no_grad(), lower_layers_kept(decoder):
        first = selected_logits(decoder.model, SEQUENCES, PICKS)
        decoder.ff2[2].weight.mul_(2)
        second = selected_logits(decoder.model, SEQUENCES, PICKS)
        other = selected_logits(decoder.model, [[9, 8, 7, 6], [5, 6, 7]], PICKS)
    assert counted == [2, 2, 3]
    assert not torch.allclose(first, second)
    with torch.no_grad():
        assert torch.equal(selected_logits(decoder.model, SEQUENCES, PICKS), second)
        assert torch.equal(selected_logits(decoder.model, [[9, 8, 7, 6], [5, 6, 7]], PICKS), other)
        decoder.ff2[2].weight.div_(2)
    assert_same_bits(decoder.model, before)


def test_what_is_too_much_or_has_a_cache_or_gradients_is_read_whole(decoder, counted):
    with lower_layers_kept(decoder, most_bytes=100):
        for _ in range(2):
            selected_logits(decoder.model, SEQUENCES, PICKS)
    assert counted == [2, 2, 2]
    with lower_layers_kept(decoder):
        for _ in range(2):
            continuation_logits(decoder.model, [((1, 2), (3,))], gradients=True)
    assert counted == [4, 4, 4]
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad(), lower_layers_kept(decoder):
        expected = decoder.model(ids).logits
        cached = decoder.model(ids[:, :2], use_cache=True)
        step = decoder.model(ids[:, 2:], past_key_values=cached.past_key_values, use_cache=True).logits
        torch.testing.assert_close(step[:, -1], expected[:, -1], atol=1e-5, rtol=1e-5)


def test_an_error_puts_every_layer_back(decoder):
    with pytest.raises(RuntimeError, match="stop"), lower_layers_kept(decoder):
        raise RuntimeError("stop")
    assert not any("forward" in vars(module) for module in decoder.layer_modules)
