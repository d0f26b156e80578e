"""What several tests need: settings of the tiny model, and bitwise comparison of weights."""

import csv

import torch

from revs_tars_plugin import REVSHyperParams, TARSHyperParams, execute_revs, execute_tars
from revs_tars_plugin.model.decoder import Decoder
from revs_tars_plugin.requests.reading import read_requests

# Prompts of the tiny model that commands are given, with what it says behind them.
SECRETS = ("w1 w2 w3", "w50 w60 w70 w80")
RETAINED = "w11 w12"
SSN_COLUMNS = ("prompt", "sentence", "ssn", "date", "name")
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


def last_layer(model, tok, requests_, hparams):
    """What the last layer computes for the first token of the first secret."""
    decoder = Decoder.of(model, hparams)
    secret = read_requests(requests_, tok)[0]
    demotion = decoder.lens.demotions(torch.tensor(secret.target_ids[:1]))
    states = {}
    decoder.forward_through_layers([secret.context(0)], states.__setitem__)
    return decoder, demotion, states[2]


def secret(tok, prompt, target="w5", **fields):
    """A request as the methods read it."""
    return read_requests([{"prompt": prompt, "target_new": target, **fields}], tok)[0]


def copy_of(model):
    """Another model with the same weights."""
    copied = type(model)(model.config).eval()
    copied.load_state_dict(model.state_dict())
    return copied


def covariance_settings(tmp_path, **changes):
    """Settings of REVS by covariance keys, with little ordinary text."""
    little = {"siblings": 0, "mom2_n_samples": 4, "stats_dir": str(tmp_path / "stats")}
    return tiny_settings(localization="covariance", **{**little, **changes})


def an_edit(model, tok, requests, kind, tmp_path):
    """An edit of the tiny model of one of the three kinds: neurons, covariance, tars."""
    if kind == "tars":
        hparams = tiny_tars(matrices=["gate", "up"], affinity="cosine", n_edits=12)
        return execute_tars(model, tok, requests[:1], hparams)
    hparams = covariance_settings(tmp_path) if kind == "covariance" else tiny_settings()
    return execute_revs(model, tok, requests, hparams)


def ssn_rows(people=4, wordings=3):
    """Sentences of the published layout, of words that the tiny tokenizer knows."""
    found = []
    for person in range(people):
        for wording in range(wordings):
            name, number = f"w{10 + person}", f"w{30 + person} w{50 + person}"
            prompt = f"w{100 + wording} {name} w{110 + wording}"
            found.append((prompt, f"{prompt} {number} w{120 + wording}", number, "w1", name))
    return found


def write_ssn(file, lines, columns=SSN_COLUMNS):
    """Writes such sentences as the published file has them."""
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(columns)
        writer.writerows(lines)
    return file
