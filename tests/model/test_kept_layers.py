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
    with torch.no_grad():
        expected = [decoder.model(torch.tensor([ids])).logits[0, -1] for ids in ([1, 2, 3], [7, 8, 3])]
        with lower_layers_kept(decoder):
            for prefix, logits in zip(([1, 2], [7, 8]), expected, strict=True):
                # The same token behind two beginnings: what was kept of the one must not stand in for the other.
                cached = decoder.model(torch.tensor([prefix]), use_cache=True)
                step = decoder.model(torch.tensor([[3]]), past_key_values=cached.past_key_values, use_cache=True)
                torch.testing.assert_close(step.logits[0, -1], logits, atol=1e-5, rtol=1e-5)


def test_gradients_of_what_is_above_skip_the_lower_layers_too(decoder, counted):
    """As in a search for a state that a layer shall give: nothing of the lower ones is trained."""
    shift = torch.zeros(32, requires_grad=True)
    handle = decoder.layer_modules[1].register_forward_hook(lambda _module, _arguments, output: output + shift)

    def gradient():
        shift.grad = None
        (logits,) = continuation_logits(decoder.model, [((1, 2), (3, 4))], gradients=True)
        logits.log_softmax(dim=-1)[:, 5].sum().backward()
        return shift.grad.clone()

    decoder.model.requires_grad_(False)
    expected = gradient()
    counted[:] = [0] * len(counted)
    with lower_layers_kept(decoder, count=2):
        assert all(torch.equal(gradient(), expected) for _ in range(3))
    assert counted == [1, 1, 3]
    assert bool(expected.any())
    handle.remove()


def test_a_padded_row_is_not_taken_for_a_text_that_ends_so(decoder):
    """Padding is token 0 here, and a text may end in it."""
    with torch.no_grad(), lower_layers_kept(decoder):
        ids = torch.tensor([[4, 5, 0]])
        for mask in ([1, 1, 0], [1, 1, 1]):
            given = {"input_ids": ids, "attention_mask": torch.tensor([mask]), "use_cache": False}
            first, second = (decoder.model(**given).logits for _ in range(2))
            torch.testing.assert_close(first, second)


def test_an_error_puts_every_layer_back(decoder):
    with pytest.raises(RuntimeError, match="stop"), lower_layers_kept(decoder):
        raise RuntimeError("stop")
    assert not any("forward" in vars(module) for module in decoder.layer_modules)
