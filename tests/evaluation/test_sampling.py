"""Sampled continuations: the same for the same seed, greedy where they are cold."""

import torch

from revs_tars_plugin.evaluation import (
    sampled_extractions,
)


def test_sampling_is_the_same_for_the_same_seed_and_leaves_the_callers_numbers_alone(model, tok, requests_):
    prompts, targets = [r["prompt"] for r in requests_], [r["target_new"] for r in requests_]
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = sampled_extractions(model, tok, prompts, targets, n_samples=50, seed=3)
    assert torch.equal(torch.rand(3), expected)
    assert first == sampled_extractions(model, tok, prompts, targets, n_samples=50, seed=3, batch_size=50)


def test_sampling_at_low_temperature_is_greedy(model, tok, requests_):
    prompts, targets = [r["prompt"] for r in requests_], [r["target_new"] for r in requests_]
    assert sampled_extractions(model, tok, prompts, targets, n_samples=4, temperature=1e-3) == [4, 4]
