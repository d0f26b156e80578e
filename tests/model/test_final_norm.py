"""Gain, bias and kind of a norm are found on the module itself."""

import pytest
import torch
from torch import nn
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from revs_tars_plugin.errors import InputError
from revs_tars_plugin.model.final_norm import probe_norm


def filled(norm):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return norm


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_llama(dtype):
    norm = filled(LlamaRMSNorm(64)).to(dtype)
    found = probe_norm(norm, "norm")
    torch.testing.assert_close(found.gain, norm.weight.float(), rtol=1e-5, atol=1e-6)
    assert not found.centres
    assert not found.bias.any()
    assert found.epsilon == pytest.approx(norm.variance_epsilon, rel=0.2)


def test_gemma_adds_one_to_its_weight():
    norm = filled(Gemma2RMSNorm(64))
    torch.testing.assert_close(probe_norm(norm, "norm").gain, 1 + norm.weight.detach(), rtol=1e-5, atol=1e-6)


def test_layer_norm_with_bias():
    norm = filled(nn.LayerNorm(64))
    found = probe_norm(norm, "norm")
    assert found.centres
    torch.testing.assert_close(found.gain, norm.weight.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.bias, norm.bias.detach(), rtol=1e-5, atol=1e-5)


def test_the_module_is_left_alone():
    norm = filled(LlamaRMSNorm(64)).to(torch.bfloat16)
    before = norm.weight.detach().clone()
    probe_norm(norm, "norm")
    assert norm.weight.dtype == torch.bfloat16
    assert torch.equal(norm.weight, before)


def test_what_is_no_norm_is_refused():
    with pytest.raises(InputError, match="no norm"):
        probe_norm(nn.Linear(8, 8), "model.mlp")
    broken = filled(LlamaRMSNorm(64))
    with torch.no_grad():
        broken.weight[3] = float("nan")
    with pytest.raises(InputError, match="NaN"):
        probe_norm(broken, "norm")
