"""What several tests need: settings of the tiny model, and bitwise comparison of weights."""

import torch

from revs_tars_plugin import REVSHyperParams, TARSHyperParams

# Prompts of the tiny model that commands are given, with what it says behind them.
SECRETS = ("w1 w2 w3", "w50 w60 w70 w80")
RETAINED = "w11 w12"
LLAMA_NAMES = {
    "rewrite_module_tmp": "model.layers.{}.mlp.down_proj",
    "layer_module_tmp": "model.layers.{}",
    "mlp_module_tmp": "model.layers.{}.mlp",
    "ln_f_module": "model.norm",
    "lm_head_module": "lm_head",
}


def tiny_settings(**changes):
    """Settings of REVS for the tiny model."""
    settings = {
        "alg_name": "REVS",
        "model_name": "tiny",
        **LLAMA_NAMES,
        "max_tokens": 2,
        "n_neurons": 20,
        "act_filter": "top_40",
        "residual_bottom_rank": 0.3,
        "residual_top_rank": 0.6,
        "mlp_bottom_rank": 0.1,
    }
    return REVSHyperParams(**{**settings, **changes})


def snapshot(model):
    """A copy of all weights."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_same_bits(model, before):
    """Every weight is bit for bit as it was."""
    for name, value in model.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value.contiguous().view(torch.uint8), before[name].contiguous().view(torch.uint8)), name


def tiny_tars(**changes):
    """Settings of TARS for the tiny model."""
    settings = {
        "alg_name": "TARS",
        "model_name": "tiny",
        **LLAMA_NAMES,
        "gate_module_tmp": "model.layers.{}.mlp.gate_proj",
        "up_module_tmp": "model.layers.{}.mlp.up_proj",
        "affinity": "contribution",
        "short_prompts": 0,
        "n_edits": 60,
        "goal_probability": 0.01,
        "min_probability": 0.02,
    }
    return TARSHyperParams(**{**settings, **changes})
