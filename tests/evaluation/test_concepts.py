"""Concepts in both directions."""

import pytest
import torch

from revs_tars_plugin.evaluation import (
    fact_log_likelihoods,
    name_probabilities,
)

PROMPT = "w1 w2 w3"


def test_concepts_are_measured_in_both_directions(model, tok):
    with torch.no_grad():
        expected = model(tok(PROMPT, return_tensors="pt").input_ids).logits[0, -1].log_softmax(-1)
    token = tok("w7")["input_ids"][0]
    assert name_probabilities(model, tok, [PROMPT], "w7") == [pytest.approx(float(expected[token].exp()), rel=1e-4)]
    assert fact_log_likelihoods(model, tok, [(PROMPT, " w7 w8")]) == [pytest.approx(float(expected[token]), rel=1e-4)]
    assert name_probabilities(model, tok, [], "w7") == fact_log_likelihoods(model, tok, []) == []
