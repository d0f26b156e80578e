"""Small models in 4 and 8 bits, as each library packs them."""

import hashlib

import torch
from architectures import wide_llama
from helpers import copy_of
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig


def saved(folder):
    """A small model and the folder that it is saved in."""
    model = wide_llama()
    model.save_pretrained(folder)
    return model, folder


def by_torchao(config):
    """What packs a model as torchao does."""
    from torchao.quantization import quantize_

    def pack(model):
        quantize_(model, config(), lambda module, name: isinstance(module, nn.Linear) and "lm_head" not in name)
        return model

    return pack


def int8():
    """8 bits of torchao."""
    from torchao.quantization import Int8WeightOnlyConfig

    return Int8WeightOnlyConfig()


def int4():
    """4 bits of torchao."""
    from torchao.quantization import IntxWeightOnlyConfig
    from torchao.quantization.granularity import PerGroup

    return IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32))


def packed_model(kind, base, dtype=torch.float32):
    """The saved model in one kind of bits."""
    model, folder = base
    if kind.startswith("torchao"):
        return by_torchao(int8 if kind.endswith("int8") else int4)(copy_of(model))
    if kind == "NF4":
        four = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
        config = BitsAndBytesConfig(load_in_4bit=True, **four)
    else:
        config = BitsAndBytesConfig(load_in_8bit=True)
    packed = AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, dtype=dtype).eval()
    with torch.no_grad():
        packed(torch.tensor([[1, 2, 3]]))  # bitsandbytes lays its weights out for this machine in the first pass
    return packed


def bits(model):
    """A digest of every tensor inside of every weight and buffer."""
    found = {}
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        parts = [value.detach()]
        while any(hasattr(part, "__tensor_flatten__") for part in parts):
            parts = [
                inner
                for part in parts
                for inner in (
                    [getattr(part, field) for field in part.__tensor_flatten__()[0]]
                    if hasattr(part, "__tensor_flatten__")
                    else [part]
                )
            ]
        digest = hashlib.blake2b()
        for part in parts:
            digest.update(part.contiguous().view(torch.uint8).numpy().data)
        found[name] = digest.hexdigest()
    return found


def rank_after(model, tok, prompt, token):
    """The rank of a token behind a prompt."""
    with torch.no_grad():
        found = model(tok(prompt, return_tensors="pt").input_ids).logits[0, -1]
    return int((found > found[token]).sum())
