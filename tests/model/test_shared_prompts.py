"""Continuations behind one prompt: reading the prompt once gives what reading it every time gives."""

import pytest
import torch
from architectures import gpt2, gptj
from transformers import MambaConfig, MambaForCausalLM

from revs_tars_plugin.model import shared_prompts
from revs_tars_plugin.model.forward import continuation_logits
from revs_tars_plugin.model.shared_prompts import logits_of_pairs

# Two prompts with several continuations, one with one, and one of a single token.
PAIRS = [
    ((1, 2, 3, 4), (5, 6)),
    ((7, 8), (9,)),
    ((1, 2, 3, 4), (6, 7, 8, 9)),
    ((10,), (11, 12)),
    ((1, 2, 3, 4), (6, 7)),
    ((10,), (12, 13)),
    ((20, 21, 22), (23, 24)),
    ((20, 21, 22), (25,)),
]


def mamba():
    return MambaForCausalLM(MambaConfig(vocab_size=201, hidden_size=32, num_hidden_layers=2, state_size=4))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gptj", "mamba"])
@pytest.mark.parametrize("positions", [4, 512])
def test_every_pair_gets_its_own_logits_once(kind, positions, model, monkeypatch):
    monkeypatch.setattr(shared_prompts, "_POSITIONS", positions)
    if kind != "llama":
        torch.manual_seed(0)
        model = {"gpt2": lambda: gpt2()[0], "gptj": lambda: gptj()[0], "mamba": mamba}[kind]().eval()
    found = {}
    for places, logits in logits_of_pairs(model, PAIRS):
        assert found.keys().isdisjoint(places)
        found.update(zip(places, logits, strict=True))
    assert found.keys() == set(range(len(PAIRS)))
    for place, pair in enumerate(PAIRS):
        (alone,) = continuation_logits(model, [pair])
        torch.testing.assert_close(found[place], alone, rtol=1e-4, atol=1e-4)


def test_a_prompt_goes_through_the_model_once(model):
    positions = []
    hook = model.model.layers[0].register_forward_hook(
        lambda _module, args, _output: positions.append(args[0].shape[:2])
    )
    list(logits_of_pairs(model, [((1, 2, 3, 4, 5), (6, index)) for index in range(9)]))
    hook.remove()
    assert positions == [(1, 4), (9, 2)]
