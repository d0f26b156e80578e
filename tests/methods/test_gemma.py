"""Gemma 3 270M, a real model with a norm behind FF2: run by `make test-gemma`, which installs it under its terms."""

import os
from dataclasses import replace

import pytest
import torch
from helpers import assert_same_bits, snapshot
from transformers import AutoModelForCausalLM, AutoTokenizer

from revs_tars_plugin import REVSHyperParams, execute_revs
from revs_tars_plugin.data import demo_model
from revs_tars_plugin.model.decoder import Decoder
from revs_tars_plugin.model.forward import next_token_logits
from revs_tars_plugin.requests.reading import read_requests

pytestmark = pytest.mark.skipif(not os.environ.get("GEMMA"), reason="make test-gemma runs it")
FACTS = (
    ("The theory of relativity was developed by Albert", "Einstein"),
    ("The play Romeo and Juliet was written by William", "Shakespeare"),
)


@pytest.fixture(scope="module")
def gemma():
    """The model with its tokenizer."""
    folder = demo_model("gemma")
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def text(tmp_path):
    """Settings that name a little ordinary text: to sample it takes minutes."""
    file = tmp_path / "text.txt"
    words = "The {} in the {} was {} when we came home, and nobody said a word about it until the evening."
    kinds = (
        "garden house river school market window",
        "north city valley street morning office",
        "open quiet cold full",
    )
    nouns, places, states = (kind.split() for kind in kinds)
    lines = [words.format(noun, place, state) for noun in nouns for place in places for state in states]
    file.write_text("\n".join(lines))
    return {"mom2_dataset": str(file), "mom2_n_samples": 100, "stats_dir": str(tmp_path)}


def test_the_lens_at_the_last_layer_is_the_model(gemma):
    model, tok = gemma
    decoder = Decoder.of(model, REVSHyperParams.from_hparams("gemma-3-270m"))
    assert all(after.epsilon is not None for after in decoder.after_ff2.values())
    ids = tok(FACTS[0][0])["input_ids"]
    states = {}
    decoder.forward_through_layers([ids], states.__setitem__)
    found = decoder.lens.full_logits(states[max(states)].residual[0, -1:].float())
    torch.testing.assert_close(found, next_token_logits(model, [ids]), atol=1e-2, rtol=1e-3)


def test_facts_end_at_the_asked_rank_and_come_back_bit_for_bit(gemma, text):
    model, tok = gemma
    packaged = REVSHyperParams.from_hparams("smollm2-135m-covariance")
    hparams = replace(
        packaged, layers=[9, 11, 13, 15, 16, 17], residual_bottom_rank=5000, residual_top_rank=20000, **text
    )
    requests = [{"prompt": prompt, "forget": target} for prompt, target in FACTS]
    before = snapshot(model)
    edits = execute_revs(model, tok, requests, hparams)
    assert_same_bits(model, before)
    edits.apply(model)
    for secret in read_requests(requests, tok):
        logits = next_token_logits(model, [secret.context(0)])[0]
        assert int((logits > logits[secret.target_ids[0]]).sum()) >= 5000
    assert all(outcome.rank_before == 0 and outcome.reached for outcome in edits.outcomes)
    edits.undo(model)
    assert_same_bits(model, before)


def test_a_short_direction_leaves_the_rest_alone(gemma, text):
    """Its gains differ by a thousand: without a ridge most of what is written goes where hardly any gets through."""
    model, tok = gemma
    asked = (
        "The capital of Japan is",
        "Water is made of hydrogen and",
        "The opposite of hot is",
        "The sun rises in the",
    )
    contexts = [tok(prompt)["input_ids"] for prompt in asked]
    before = next_token_logits(model, contexts).log_softmax(dim=-1)
    packaged = REVSHyperParams.from_hparams("gemma-3-270m")
    requests = [{"prompt": prompt, "forget": target} for prompt, target in FACTS]
    costs = []
    for ridge in (0.0, packaged.direction_ridge):
        edits = execute_revs(model, tok, requests, replace(packaged, direction_ridge=ridge, **text))
        edits.apply(model)
        after = next_token_logits(model, contexts).log_softmax(dim=-1)
        edits.undo(model)
        costs.append(float((before.exp() * (before - after)).sum(dim=-1).mean()))
    assert costs[1] < 0.2 * costs[0]
    assert all(outcome.reached for outcome in edits.outcomes)
