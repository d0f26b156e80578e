"""What tells weights apart."""

import torch

from revs_tars_plugin.model.tensors import checksum


def test_weights_of_any_shape_have_a_checksum_and_one_bit_changes_it():
    weights = [torch.zeros(0), torch.zeros(3, 0), torch.ones(()), torch.arange(12.0).reshape(3, 4)]
    same = [weight.clone() for weight in weights]
    assert checksum(weights) == checksum(same)
    assert checksum(weights) != checksum(weights[1:])
    same[-1].view(torch.int32)[2, 3] ^= 1
    assert checksum(weights) != checksum(same)
