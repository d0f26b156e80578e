"""Which neurons are edited: by each score what it says, and gradients as finite differences have them."""

import pytest
import torch
from helpers import copy_of, last_layer, tiny_settings

from revs_tars_plugin.model.after_ff2 import AfterFF2
from revs_tars_plugin.model.decoder import Decoder
from revs_tars_plugin.requests.reading import read_requests
from revs_tars_plugin.revs.neuron_selection import activation_gradients, select_neurons


def test_neuron_scores_order_as_they_say(model, tok, requests_):
    decoder, demotion, state = last_layer(model, tok, requests_, tiny_settings())
    ff2, activation, lens = decoder.ff2[2], state.ff2_input[0, -1], decoder.lens

    def select(**changes):
        gradient = torch.linspace(-1, 1, 64)
        settings = tiny_settings(n_neurons=20, **changes)
        return select_neurons(
            ff2, activation, lens, demotion, settings, after=AfterFF2(), gradient=gradient, generator=torch.Generator()
        )

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
    # In float64 but for the norms, and far enough apart: what is rounded must not be as large as the difference.
    exact = copy_of(model).double()
    slow = Decoder.of(exact, hparams)
    for layer, neuron in ((0, 3), (2, 40)):
        values = []
        for shift in (3e-2, -3e-2):

            def moved(_module, args, shift=shift, neuron=neuron):
                inputs = args[0].clone()
                inputs[0, -1, neuron] += shift
                return (inputs,)

            handle = slow.ff2[layer].module.register_forward_pre_hook(moved)
            with torch.no_grad():
                values.append(float(exact(torch.tensor([context])).logits[0, -1].log_softmax(-1)[token]))
            handle.remove()
        assert float(found[layer][neuron]) == pytest.approx((values[0] - values[1]) / 6e-2, rel=1e-2, abs=1e-5)
