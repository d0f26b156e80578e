"""Logits along a direction of a large vocabulary: followed by a few columns as by all of them."""

import torch

from revs_tars_plugin.model import moving_logits
from revs_tars_plugin.model.moving_logits import MovingLogits


def moving(size=20_000, rows=6, **more):
    """Logits of a model that is sure of one token, which falls against twenty others."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, size, generator=generator) * 3
    tokens = torch.arange(rows) * 7 + 30
    logits[torch.arange(rows), tokens] = 25.0
    responses = torch.randn(rows, size, generator=generator) * 0.02
    responses[torch.arange(rows), tokens] = 1.0
    responses[:, :20] = -0.5

    def scale_at(steps):
        return 1 + steps * 0.002

    return MovingLogits(logits, responses, scale_at, torch.ones(rows), **more), tokens


def unlikeliness(logits, tokens):
    return logits.logsumexp(dim=1) - logits.gather(1, tokens[:, None])[:, 0]


def check(one, tokens, factor=1.0):
    fewer, columns = one.reduced(one.at(torch.zeros(len(tokens))), tokens, factor)
    assert fewer.moving.shape[1] == moving_logits._LIKELIEST + 1
    for step in (0.0, 5.0, 15.0, 25.0, 35.0):
        steps = torch.full((len(tokens),), step)
        exact = unlikeliness(factor * one.at(steps), tokens)
        torch.testing.assert_close(unlikeliness(factor * fewer.at(steps), columns), exact, atol=0.02, rtol=2e-3)
    assert float(exact.min()) > 5 * factor  # they have become unlikely


def test_a_few_columns_and_one_for_all_others_say_how_likely_the_token_is():
    check(*moving())
    check(*moving(offsets=torch.randn(20_000) * 0.1))
    check(*moving(fixed=torch.randn(6, 20_000), share_at=lambda steps: 1 / (1 + steps * 0.01)))
    check(*moving(), factor=0.7)


def test_a_small_vocabulary_is_followed_whole():
    one, tokens = moving(size=500)
    fewer, columns = one.reduced(one.at(torch.zeros(6)), tokens)
    assert fewer is one
    assert columns is tokens


def test_the_logits_are_those_of_the_formula():
    one, _ = moving(size=80, fixed=torch.randn(6, 80), share_at=lambda steps: 1 / (1 + steps), offsets=torch.randn(80))
    steps = torch.rand(6) * 3
    scale, share = (1 + 0.002 * steps)[:, None], (1 / (1 + steps))[:, None]
    expected = (one.fixed + share * (one.moving - steps[:, None] * one.responses)) / scale + one.offsets
    torch.testing.assert_close(one.at(steps), expected)
