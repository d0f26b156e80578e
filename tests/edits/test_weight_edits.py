"""Changes of one weight."""

import pytest
import torch

from revs_tars_plugin.edits.weight_edits import add_product


@pytest.mark.parametrize("neuron_dim", [0, 1])
def test_a_product_is_added_in_slices_as_in_one(neuron_dim):
    weight = torch.randn(2500, 8) if neuron_dim == 0 else torch.randn(8, 2500)
    keys, values = torch.randn(2500, 3), torch.randn(3, 8)
    product = keys @ values
    expected = weight + (product if neuron_dim == 0 else product.T)
    add_product(weight, neuron_dim, keys, values)
    torch.testing.assert_close(weight, expected)
