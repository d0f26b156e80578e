"""One orientation for every class of module, and what cannot be edited is refused by name."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from revs_tars_plugin import InputError
from revs_tars_plugin.model.matrices import matrix_of


def made(kind, *, writes):
    """A matrix of 10 neurons beside a residual space of width 4."""
    inputs, outputs = (10, 4) if writes else (4, 10)
    module = nn.Linear(inputs, outputs, bias=False) if kind == "linear" else Conv1D(outputs, inputs)
    return matrix_of(module, setting="rewrite_module_tmp", name="mlp", width=4, writes=writes)


@pytest.mark.parametrize("writes", [True, False])
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_neuron_is_a_row_whatever_the_module(kind, writes):
    matrix = made(kind, writes=writes)
    assert (matrix.name, matrix.weight_name, matrix.width) == ("mlp", "mlp.weight", 10)
    assert matrix.rows.shape == (10, 4)
    indices = torch.tensor([7, 2])
    assert torch.equal(matrix.neurons(indices), matrix.rows[indices])
    # What it computes: FF2 adds up its neurons, FF1 is the product with each.
    state = torch.randn(10 if writes else 4)
    expected = state @ matrix.rows if writes else matrix.rows @ state
    torch.testing.assert_close(matrix.module(state[None])[0].detach(), expected)
    matrix.neurons(indices).zero_()
    assert matrix.rows.abs().min() > 0  # a copy


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Identity(), 'rewrite_module_tmp names "mlp", a Identity without a weight'),
        (nn.Linear(10, 5), "must write into the residual space of width 4"),
        (nn.Linear(10, 4, device="meta"), "is on the meta device"),
        (nn.Linear(10, 4).to(torch.float8_e4m3fn), "is quantized"),
    ],
)
def test_what_cannot_be_edited_is_named(module, message):
    with pytest.raises(InputError, match=message):
        matrix_of(module, setting="rewrite_module_tmp", name="mlp", width=4, writes=True)


def test_a_weight_with_nan_is_refused():
    module = nn.Linear(10, 4)
    module.weight.data[1, 2] = float("nan")
    with pytest.raises(InputError, match="holds NaN or Inf"):
        matrix_of(module, setting="rewrite_module_tmp", name="mlp", width=4, writes=True)
