"""The value that MEMIT-delete searches: the same whether or not the layers below it are computed in every step."""

import pytest
import torch
from helpers import LLAMA_NAMES

from revs_tars_plugin.host.memit_delete import MEMITDeleteHyperParams, value_vector
from revs_tars_plugin.model.decoder import Decoder
from revs_tars_plugin.model.forward import gradients_for
from revs_tars_plugin.model.kept_layers import lower_layers_kept
from revs_tars_plugin.requests.reading import read_requests

STEPS = 4


@pytest.fixture
def search(model, tok, requests_):
    """Searches for a value; gives it with how often each layer ran."""
    request = {**requests_[0], "subject": "w2"}
    hparams = MEMITDeleteHyperParams(
        alg_name="MEMIT-delete",
        model_name="tiny",
        layers=[0, 1],
        v_num_grad_steps=STEPS,
        goal_probability=1e-9,
        v_lr=0.05,
        **LLAMA_NAMES,
    )
    decoder = Decoder.of(model, hparams)
    (secret,) = read_requests([request], tok)
    counts = [0] * decoder.n_layers
    for number, module in enumerate(decoder.layer_modules):

        def count(_module, _arguments, number=number):
            counts[number] += 1

        module.self_attn.register_forward_pre_hook(count)

    def run():
        counts[:] = [0] * len(counts)
        with gradients_for(model, []):
            value = value_vector.deleting_value(decoder, tok, secret, ["{}", "w5 w6 {}"], hparams)
        return value, list(counts)

    return run


def test_layers_below_the_value_run_once_for_each_text(search, monkeypatch):
    value, ran = search()
    monkeypatch.setattr(
        value_vector, "lower_layers_kept", lambda decoder, count: lower_layers_kept(decoder, most_bytes=0, count=count)
    )
    whole, every_time = search()
    assert torch.equal(value, whole)
    # One pass says what else is said of the subject; then texts and subject in turn, at last the texts alone.
    assert every_time == [1 + 2 * STEPS + 1] * 3
    assert ran == [1 + 2, 1 + 2, every_time[2]]
