"""Bits kept outside memory: the same ones come back, whatever the dtype, and a full disk is no loss."""

import tempfile

import pytest
import torch

from revs_tars_plugin.edits.disk_tensor import DiskTensor


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("in_memory", [0, 10**9])
def test_every_bit_comes_back(dtype, in_memory):
    tensor = torch.randn(7, 5).to(dtype)
    tensor[0, 0], tensor[0, 1], tensor[0, 2] = float("nan"), float("inf"), -0.0
    kept = DiskTensor(tensor.T, in_memory)
    expected = tensor.T.clone(memory_format=torch.contiguous_format).view(torch.uint8)
    tensor.zero_()
    for _ in range(2):
        found = kept.load()
        assert (found.dtype, found.shape) == (dtype, (5, 7))
        assert torch.equal(found.contiguous().view(torch.uint8), expected)
        found.zero_()  # what is done to it does not change what is kept


def test_the_bits_are_the_same():
    tensor = torch.randn(300, 40)
    assert torch.equal(DiskTensor(tensor, 0).load(), tensor)
    assert torch.equal(DiskTensor(tensor.T, 0).load(), tensor.T)


def test_where_the_disk_is_full_it_stays_in_memory(monkeypatch):
    def full(**_):
        raise OSError("No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    tensor = torch.randn(3, 4)
    assert torch.equal(DiskTensor(tensor, 0).load(), tensor)
