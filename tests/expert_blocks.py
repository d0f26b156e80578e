"""A mixture whose experts are modules of their own, as transformers before version 5 has it."""

import torch
import transformers as hf
from torch import nn


class Expert(nn.Module):
    """One expert: a gated feed-forward block."""

    def __init__(self, gate_up, down):
        super().__init__()
        gate, up = gate_up.chunk(2)
        self.w1, self.w3, self.w2 = (linear(weight) for weight in (gate, up, down))

    def forward(self, hidden):
        """Reads and writes the residual space, a token a row."""
        return self.w2(nn.functional.silu(self.w1(hidden)) * self.w3(hidden))


class ExpertBlock(nn.Module):
    """Sends every token to some experts and adds up what these give, times the router's weights."""

    def __init__(self, fused, shared=None):
        super().__init__()
        self.gate, experts = fused.gate, fused.experts
        self.experts = nn.ModuleList(map(Expert, experts.gate_up_proj, experts.down_proj))
        self.shared = shared

    def forward(self, hidden_states):
        """Goes expert by expert through the tokens that it was chosen for."""
        rows = hidden_states.reshape(-1, hidden_states.shape[-1])
        _, weights, chosen = self.gate(rows)
        written = torch.zeros_like(rows) if self.shared is None else self.shared(rows)
        for number, expert in enumerate(self.experts):
            tokens, place = (chosen == number).nonzero(as_tuple=True)
            if len(tokens):
                found = expert(rows[tokens]) * weights[tokens, place, None].to(rows.dtype)
                written.index_add_(0, tokens, found.to(rows.dtype))
        return written.reshape(hidden_states.shape)


class LayerOfModules(nn.Module):
    """A layer of Mixtral with such a block under the name that it had."""

    def __init__(self, layer):
        super().__init__()
        self.self_attn, self.block_sparse_moe = layer.self_attn, ExpertBlock(layer.mlp)
        self.input_layernorm, self.post_attention_layernorm = layer.input_layernorm, layer.post_attention_layernorm

    def forward(self, hidden_states, **kwargs):
        """Attention, then the experts."""
        hidden_states = hidden_states + self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)[0]
        written = self.block_sparse_moe(self.post_attention_layernorm(hidden_states))
        return hidden_states + (written[0] if isinstance(written, tuple) else written)


def linear(weight):
    """A linear map with a copy of a weight."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    made.weight.data.copy_(weight.detach())
    return made


def mixtral_of_modules(config):
    """Builds a Mixtral of such layers."""
    return with_modules(hf.MixtralForCausalLM(config))


def with_modules(model):
    """Puts modules in the place of a Mixtral's fused experts, with the same weights."""
    model.model.layers = nn.ModuleList(LayerOfModules(layer) for layer in model.model.layers)
    model.config.model_type = "mixtral-of-modules"  # peft takes names of old layers for those of new ones
    return model
