"""Relearning brings back what it teaches, and is taken back."""

import pytest
from helpers import assert_same_bits, snapshot

from revs_tars_plugin import execute_revs
from revs_tars_plugin.evaluation import (
    after_relearning,
    efficacy,
    probes_of,
)


def test_relearning_one_secret_is_measured_and_taken_back(model, tok, requests_, hparams):
    execute_revs(model, tok, requests_, hparams).apply(model)
    before = snapshot(model)
    taught, other = (" ".join([r["prompt"], r["target_new"]]) for r in requests_)
    probes = probes_of(tok, [requests_[0]["prompt"]], [requests_[0]["target_new"]], {0: [0]})
    hidden = efficacy(model, probes, k=20)
    back = after_relearning(model, tok, [taught], lambda m: efficacy(m, probes, k=20), epochs=30, learning_rate=5e-3)
    assert hidden > 0.9
    assert back < 0.2
    assert_same_bits(model, before)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())

    def breaks(_model):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        after_relearning(model, tok, [other], breaks)
    assert_same_bits(model, before)
