"""One tiny random model for each family, from its config, with the names of its modules."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
import transformers as hf
from expert_blocks import mixtral_of_modules
from helpers import LLAMA_NAMES, tiny_settings, tiny_tars

_GATED = {"gate_module_tmp": "model.layers.{}.mlp.gate_proj", "up_module_tmp": "model.layers.{}.mlp.up_proj"}
_GPT2 = {
    "layer_module_tmp": "transformer.h.{}",
    "mlp_module_tmp": "transformer.h.{}.mlp",
    "ln_f_module": "transformer.ln_f",
    "lm_head_module": "lm_head",
}
_NEOX = {
    "rewrite_module_tmp": "gpt_neox.layers.{}.mlp.dense_4h_to_h",
    "layer_module_tmp": "gpt_neox.layers.{}",
    "mlp_module_tmp": "gpt_neox.layers.{}.mlp",
    "ln_f_module": "gpt_neox.final_layer_norm",
    "lm_head_module": "lm_head",
}
# Of a mixture of experts that are modules of their own.
_MODULES = "model.layers.{}.block_sparse_moe"
# Of a mixture of experts.
_EXPERTS = {**LLAMA_NAMES, "rewrite_module_tmp": "model.layers.{}.mlp.experts"}
_COMMON = {
    "vocab_size": 201,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GROUPED = {**_COMMON, "num_key_value_heads": 2, "head_dim": 8}
_OLD = {"vocab_size": 201, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "initializer_range": 0.3}


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        kind: The model's class.
        config: Its config's class.
        settings: What the config is given.
        names: The module names.
        first: Names of the matrices that read the residual space, for TARS.
    """

    kind: type
    config: type
    settings: dict = field(repr=False)
    names: dict = field(repr=False)
    first: dict = field(default_factory=dict, repr=False)

    def make(self, seed=0):
        """Builds it with gains and biases that are neither 1 nor 0, so that they matter."""
        torch.manual_seed(seed)
        model = self.kind(self.config(**self.settings)).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "norm" in name or "ln_" in name:
                    parameter.uniform_(0.2, 0.8)
                elif name.endswith("bias"):
                    parameter.normal_(0, 0.1)
                elif "mlp" in name and self.settings is not _COMMON:
                    parameter.mul_(1.5)
        return model


FAMILIES = {
    "llama": Family(
        hf.LlamaForCausalLM, hf.LlamaConfig, {**_GROUPED, "tie_word_embeddings": True}, LLAMA_NAMES, _GATED
    ),
    "mistral": Family(hf.MistralForCausalLM, hf.MistralConfig, _GROUPED, LLAMA_NAMES, _GATED),
    "qwen2": Family(hf.Qwen2ForCausalLM, hf.Qwen2Config, _GROUPED, LLAMA_NAMES, _GATED),
    "qwen3": Family(hf.Qwen3ForCausalLM, hf.Qwen3Config, _GROUPED, LLAMA_NAMES, _GATED),
    "gpt2": Family(
        hf.GPT2LMHeadModel,
        hf.GPT2Config,
        {**_OLD, "tie_word_embeddings": True},
        {**_GPT2, "rewrite_module_tmp": "transformer.h.{}.mlp.c_proj"},
        {"up_module_tmp": "transformer.h.{}.mlp.c_fc"},
    ),
    "gptj": Family(
        hf.GPTJForCausalLM,
        hf.GPTJConfig,
        {**_OLD, "rotary_dim": 8, "tie_word_embeddings": False},
        {**_GPT2, "rewrite_module_tmp": "transformer.h.{}.mlp.fc_out"},
        {"up_module_tmp": "transformer.h.{}.mlp.fc_in"},
    ),
    "gpt_neox": Family(
        hf.GPTNeoXForCausalLM,
        hf.GPTNeoXConfig,
        _COMMON,
        _NEOX,
        {"up_module_tmp": "gpt_neox.layers.{}.mlp.dense_h_to_4h"},
    ),
    "gemma": Family(hf.GemmaForCausalLM, hf.GemmaConfig, _GROUPED, LLAMA_NAMES, _GATED),
    "gemma2": Family(
        hf.Gemma2ForCausalLM,
        hf.Gemma2Config,
        {**_GROUPED, "final_logit_softcapping": 30.0},
        LLAMA_NAMES,
        _GATED,
    ),
    "gemma3": Family(hf.Gemma3ForCausalLM, hf.Gemma3TextConfig, _GROUPED, LLAMA_NAMES, _GATED),
    "olmo2": Family(hf.Olmo2ForCausalLM, hf.Olmo2Config, {**_COMMON, "num_key_value_heads": 2}, LLAMA_NAMES, _GATED),
    "granite": Family(
        hf.GraniteForCausalLM,
        hf.GraniteConfig,
        {**_COMMON, "num_key_value_heads": 2, "residual_multiplier": 0.3, "logits_scaling": 4.0},
        LLAMA_NAMES,
        _GATED,
    ),
    "phi3": Family(
        hf.Phi3ForCausalLM,
        hf.Phi3Config,
        {**_COMMON, "num_key_value_heads": 2},
        LLAMA_NAMES,
        {"gate_module_tmp": "model.layers.{}.mlp.gate_up_proj", "up_module_tmp": "model.layers.{}.mlp.gate_up_proj"},
    ),
    "mixtral": Family(
        hf.MixtralForCausalLM,
        hf.MixtralConfig,
        {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
        _EXPERTS,
    ),
    "qwen3_moe": Family(
        hf.Qwen3MoeForCausalLM,
        hf.Qwen3MoeConfig,
        {**_GROUPED, "moe_intermediate_size": 24, "num_experts": 6, "num_experts_per_tok": 2, "norm_topk_prob": True},
        _EXPERTS,
    ),
    "olmoe": Family(
        hf.OlmoeForCausalLM,
        hf.OlmoeConfig,
        {**_COMMON, "num_key_value_heads": 2, "num_experts": 4, "num_experts_per_tok": 2},
        _EXPERTS,
    ),
    "mixtral_modules": Family(
        mixtral_of_modules,
        hf.MixtralConfig,
        {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
        {**LLAMA_NAMES, "rewrite_module_tmp": f"{_MODULES}.experts", "mlp_module_tmp": _MODULES},
    ),
    "gpt_oss": Family(
        hf.GptOssForCausalLM,
        hf.GptOssConfig,
        {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
        _EXPERTS,
    ),
}


def with_uneven_gains(family, low, high):
    """Builds a family with gains behind FF2, where it has any, that differ from 10^low to 10^high."""
    model = family.make()
    for name, parameter in model.named_parameters():
        if "post_feedforward" in name:  # Gemma counts its gains from 1
            parameter.data = torch.logspace(low, high, len(parameter)) - float(family.kind is hf.Gemma2ForCausalLM)
    return model


def wide_llama():
    """A Llama that is wide enough for kernels of four bits."""
    family = FAMILIES["llama"]
    torch.manual_seed(0)
    wide = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
    return family.kind(family.config(**{**family.settings, **wide})).eval()


PROMPT = "w1 w2 w3"


def said(model, tok, prompt=PROMPT):
    """The token the model itself says after the prompt."""
    with torch.no_grad():
        return int(model(tok(prompt, return_tensors="pt").input_ids).logits[0, -1].argmax())


def request_for(model, tok):
    """A request to forget what the model says."""
    return {"prompt": PROMPT, "target_new": tok.decode([said(model, tok)])}


def statistics(tmp_path):
    """Settings that name a small file of ordinary text."""
    (tmp_path / "text.txt").write_text("\n".join(f"w{i} w{i + 3} w{(7 * i) % 190}" for i in range(60)))
    return {"mom2_dataset": str(tmp_path / "text.txt"), "mom2_n_samples": 60, "stats_dir": str(tmp_path / "stats")}


# Those whose first feed-forward matrix has one row a neuron; of Phi 3 gate and up are one matrix.
WITH_ROWS = [name for name, family in FAMILIES.items() if "up_module_tmp" in family.first and name != "phi3"]


def wider(family):
    """A family whose model has so many coordinates that 200 words can be told apart."""
    key = "n_embd" if "n_embd" in family.settings else "hidden_size"
    return replace(family, settings={**family.settings, key: 128})


def settings_of(family, method, tmp_path, **changes):
    """Settings of a method for a family."""
    if method == "TARS":
        matrices = ["down", "up"] if "up_module_tmp" in family.first else ["down"]
        own = {"matrices": matrices, "n_edits": 40, "gate_module_tmp": "", "up_module_tmp": "", **family.first}
        return tiny_tars(**{**own, **family.names, **statistics(tmp_path), **changes})
    own = {"max_tokens": 1, "n_neurons": 60, "act_filter": "none", "residual_bottom_rank": 40, "siblings": 0}
    return tiny_settings(**{**own, **family.names, **statistics(tmp_path), **changes})


def logits_after(model, ids):
    """The model's own logits after a sequence."""
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, -1].float()


def gpt2():
    """A random GPT-2, with the name of its FF2."""
    config = hf.GPT2Config(
        vocab_size=201, n_embd=32, n_layer=3, n_head=4, n_positions=64, initializer_range=0.3, tie_word_embeddings=False
    )
    return hf.GPT2LMHeadModel(config), "transformer.h.{}.mlp.c_proj"


def gptj():
    """A random GPT-J, whose head has a bias, with the name of its FF2."""
    config = hf.GPTJConfig(
        vocab_size=201, n_embd=32, n_layer=3, n_head=4, n_positions=64, rotary_dim=8, initializer_range=0.3
    )
    model = hf.GPTJForCausalLM(config)
    torch.nn.init.normal_(model.lm_head.bias)
    return model, "transformer.h.{}.mlp.fc_out"
