"""Sums of many products: no more is kept than the matrix has a rank, and what is tried is what is applied later."""

import pytest
import torch
from helpers import assert_same_bits, snapshot
from torch import nn

from revs_tars_plugin.edits.trial import TrialEdits
from revs_tars_plugin.model.matrices import FeedForwardMatrix

PRODUCTS, RANK = 12, 5


@pytest.fixture(params=[(64, 32), (16, 32)], ids=["wide", "narrow"])
def block(request):
    """One FF2 of f neurons that writes to d numbers."""
    torch.manual_seed(1)
    f, d = request.param
    return nn.Sequential(nn.Linear(f, d, bias=False))


def products(block, count):
    generator = torch.Generator().manual_seed(2)
    d, f = block[0].weight.shape
    return [
        (torch.randn(f, RANK, generator=generator), torch.randn(RANK, d, generator=generator)) for _ in range(count)
    ]


def collected(block, count):
    """The edit of so many products, with the weight as it stood while they were tried."""
    with TrialEdits() as trial:
        for keys, values in products(block, count):
            trial.add_low_rank(FeedForwardMatrix(block[0], "0.weight", 1), keys, values)
        return trial.collect("TEST", ()), block[0].weight.detach().clone()


def test_a_few_products_are_kept_as_they_are(block):
    edits, _ = collected(block, 2)
    (edit,) = edits.edits
    assert torch.equal(edit.keys, torch.cat([keys for keys, _ in products(block, 2)], dim=1))
    assert edit.keys.shape[1] == 2 * RANK


def test_many_products_take_no_more_than_the_matrix_has_a_rank(block):
    before = snapshot(block)
    edits, tried = collected(block, PRODUCTS)
    assert_same_bits(block, before)
    (edit,) = edits.edits
    assert edit.keys.shape[1] == min(block[0].weight.shape) < PRODUCTS * RANK
    exact = before["0.weight"].double().T
    for keys, values in products(block, PRODUCTS):
        exact = exact + keys.double() @ values.double()
    torch.testing.assert_close(tried.T.double(), exact, rtol=1e-5, atol=1e-4)
    edits.apply(block)
    assert torch.equal(block[0].weight, tried)
    edits.undo(block)
    assert_same_bits(block, before)


def test_an_edit_that_was_collected_stays_when_more_is_tried(block):
    with TrialEdits() as trial:
        for keys, values in products(block, PRODUCTS):
            trial.add_low_rank(FeedForwardMatrix(block[0], "0.weight", 1), keys, values)
        (edit,) = trial.collect("TEST", ()).edits
        kept = (edit.keys @ edit.values).clone()
        trial.add_low_rank(FeedForwardMatrix(block[0], "0.weight", 1), *products(block, 1)[0])
        assert torch.equal(edit.keys @ edit.values, kept)
