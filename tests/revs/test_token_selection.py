"""Which tokens of a secret are edited."""

import pytest
import torch
from helpers import secret, tiny_settings

from revs_tars_plugin.requests.reading import read_requests
from revs_tars_plugin.revs.siblings import Sibling
from revs_tars_plugin.revs.token_selection import select_positions, surprises


def positions(secret, tok, hparams, surprise=None):
    return select_positions(secret, tok, hparams, torch.Generator().manual_seed(0), surprise)


def test_the_rarest_tokens_are_chosen_in_the_order_of_the_text(tok):
    secret = read_requests([{"prompt": "w1", "target_new": "w90 w3 w150 w120"}], tok)[0]
    assert positions(secret, tok, tiny_settings(max_tokens=2)) == [2, 3]
    assert positions(secret, tok, tiny_settings(max_tokens=9)) == [0, 1, 2, 3]
    assert positions(secret, tok, tiny_settings(skip_tokens=["w150"])) == [0, 3]
    assert positions(secret, tok, tiny_settings(stop_tokens=["w150"])) == [0, 1]


def test_other_choices_of_tokens(tok):
    secret = read_requests([{"prompt": "w1", "target_new": "w90 w3 w150 w120"}], tok)[0]

    def chosen(method, surprise=None, count=1):
        return positions(secret, tok, tiny_settings(token_method=method, max_tokens=count), surprise)

    assert chosen("first", count=2) == [0, 1]
    assert chosen("frequent", count=2) == [0, 1]
    assert chosen("frequent") == [1]
    assert len(chosen("random", count=3)) == 3
    assert chosen("specific", [-1.0, -9.0, -2.0, -3.0]) == [1]
    # Without siblings to ask, the rarest.
    assert chosen("specific") == chosen("rarest") == [2]
    # Given away by what comes before, and not the beginning itself; the rarest of those.
    assert chosen("chained", [0.0, -0.1, -3.0, -0.1]) == [3]
    assert chosen("chained", [-5.0, -5.0, -5.0, -5.0]) == [2]


def test_tokens_are_asked_for_behind_sibling_prompts(model, tok):
    asked = secret(tok, "w1 w2 w3", "w7 w8")
    found = surprises(model, tok, [asked], {0: [Sibling("w9 w2 w3", "w1"), Sibling("w4 w2 w3", "w1")]})[0]
    expected = []
    for prompt in ("w9 w2 w3 w7 w8", "w4 w2 w3 w7 w8"):
        with torch.no_grad():
            ids = tok(prompt, return_tensors="pt").input_ids
            log_probabilities = model(ids).logits[0].log_softmax(-1)
        expected.append([float(log_probabilities[2, ids[0, 3]]), float(log_probabilities[3, ids[0, 4]])])
    assert found == pytest.approx([sum(column) / 2 for column in zip(*expected, strict=True)], abs=1e-4)
