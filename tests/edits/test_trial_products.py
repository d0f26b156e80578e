"""Sums of many products: no more is kept than the matrix has a rank, and what is tried is what is applied later."""

import pytest
import torch
from helpers import assert_same_bits, snapshot
from torch import nn
from transformers.pytorch_utils import Conv1D

from revs_tars_plugin.edits.edit_set import EditSet
from revs_tars_plugin.edits.trial import TrialEdits
from revs_tars_plugin.model.matrices import FeedForwardMatrix

PRODUCTS, RANK = 12, 5


@pytest.fixture(params=["wide", "narrow", "bfloat16", "Conv1D"])
def block(request):
    """One FF2 of f neurons that writes to d numbers."""
    torch.manual_seed(1)
    f, d = (16, 32) if request.param == "narrow" else (64, 32)
    module = Conv1D(d, f) if request.param == "Conv1D" else nn.Linear(f, d, bias=False)
    return nn.Sequential(module.to(torch.bfloat16 if request.param == "bfloat16" else torch.float32))


def neuron_dim(block):
    return int(not isinstance(block[0], Conv1D))


def shape(block):
    """f and d."""
    return block[0].weight.movedim(neuron_dim(block), 0).shape


def products(block, count):
    generator = torch.Generator().manual_seed(2)
    f, d = shape(block)
    return [
        (torch.randn(f, RANK, generator=generator), torch.randn(RANK, d, generator=generator)) for _ in range(count)
    ]


def try_all(trial, block, count):
    matrix = FeedForwardMatrix(block[0], "0.weight", neuron_dim(block))
    for keys, values in products(block, count):
        trial.add_low_rank(matrix, keys, values)


def collected(block, count):
    """The edit of so many products, with the weight as it stood while they were tried."""
    with TrialEdits() as trial:
        try_all(trial, block, count)
        return trial.collect("TEST", ()), block[0].weight.detach().clone()


def test_a_few_products_are_kept_as_they_are(block):
    edits, _ = collected(block, 2)
    (edit,) = edits.edits
    assert torch.equal(edit.keys, torch.cat([keys for keys, _ in products(block, 2)], dim=1))
    assert edit.keys.shape[1] == 2 * RANK


def test_many_products_take_no_more_than_the_matrix_has_a_rank(block, tmp_path):
    before = snapshot(block)
    edits, tried = collected(block, PRODUCTS)
    assert_same_bits(block, before)
    (edit,) = edits.edits
    assert edit.keys.shape[1] == min(shape(block)) < PRODUCTS * RANK
    exact = sum(keys.double() @ values.double() for keys, values in products(block, PRODUCTS))
    torch.testing.assert_close(edit.keys.double() @ edit.values.double(), exact, rtol=1e-5, atol=1e-4)
    edits.save(tmp_path / "edit.safetensors")
    for same in (edits, EditSet.load(tmp_path / "edit.safetensors")):
        same.apply(block)
        assert torch.equal(block[0].weight, tried)
        assert not torch.equal(tried, before["0.weight"])
        same.undo(block)
        assert_same_bits(block, before)


def test_a_sum_that_is_kept_whole_is_not_rounded_by_a_multiplication(block):
    """Where products are rounded, as by TensorFloat-32 or under autocast, what is applied is still what was tried."""
    edits, tried = collected(block, PRODUCTS)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, rounded_tried = collected(block, PRODUCTS)
        edits.apply(block)
        assert torch.equal(block[0].weight, tried)
        edits.undo(block)
    assert torch.equal(rounded_tried, tried)
    assert torch.equal(rounded.edits[0].keys, edits.edits[0].keys)


def test_an_edit_that_was_collected_stays_when_more_is_tried(block):
    with TrialEdits() as trial:
        try_all(trial, block, PRODUCTS)
        (edit,) = trial.collect("TEST", ()).edits
        kept = (edit.keys @ edit.values).clone()
        try_all(trial, block, 1)
        assert torch.equal(edit.keys @ edit.values, kept)
