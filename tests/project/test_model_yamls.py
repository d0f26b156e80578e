"""Every packaged YAML loads and names real modules: those of the model made from its public config, without weights."""

import os
from pathlib import Path

import pytest
import torch
import transformers as hf
import yaml

from revs_tars_plugin import REVSHyperParams, TARSHyperParams
from revs_tars_plugin.hyperparams import packaged_hparams

_LLAMA3 = {"vocab_size": 128256, "num_key_value_heads": 8}
_QWEN2 = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
}


def llama(**settings):
    return hf.LlamaForCausalLM, hf.LlamaConfig(**settings)


# Of each model its class and its public config. Baichuan and InternLM are Llama in all but the attention's inner names.
MODELS = {
    "gpt2-xl": lambda: (hf.GPT2LMHeadModel, hf.GPT2Config(n_embd=1600, n_layer=48, n_head=25)),
    "gpt-j-6B": lambda: (hf.GPTJForCausalLM, hf.GPTJConfig()),
    "llama-7b": llama,
    "llama3-8b": lambda: llama(**_LLAMA3, intermediate_size=14336),
    "llama3.1-8b": lambda: llama(**_LLAMA3, intermediate_size=14336),
    "llama3.2-3b": lambda: llama(
        **_LLAMA3, hidden_size=3072, intermediate_size=8192, num_hidden_layers=28, num_attention_heads=24
    ),
    "mistral-7b": lambda: (hf.MistralForCausalLM, hf.MistralConfig()),
    "qwen2-7b": lambda: (hf.Qwen2ForCausalLM, hf.Qwen2Config(**_QWEN2)),
    "qwen2.5-7b": lambda: (hf.Qwen2ForCausalLM, hf.Qwen2Config(**_QWEN2)),
    "qwen3-8b": lambda: (
        hf.Qwen3ForCausalLM,
        hf.Qwen3Config(intermediate_size=12288, num_hidden_layers=36, num_key_value_heads=8),
    ),
    "qwen3.5-9b": lambda: (hf.Qwen3_5ForCausalLM, hf.Qwen3_5TextConfig()),
    "phi-4": lambda: (
        hf.Phi3ForCausalLM,
        hf.Phi3Config(
            vocab_size=100352,
            hidden_size=5120,
            intermediate_size=17920,
            num_hidden_layers=40,
            num_attention_heads=40,
            num_key_value_heads=10,
        ),
    ),
    "gemma-2-9b": lambda: (
        hf.Gemma2ForCausalLM,
        hf.Gemma2Config(
            vocab_size=256000,
            hidden_size=3584,
            intermediate_size=14336,
            num_hidden_layers=42,
            num_attention_heads=16,
            num_key_value_heads=8,
        ),
    ),
    "gemma-3-27b": lambda: (
        hf.Gemma3ForConditionalGeneration,
        hf.Gemma3Config(
            text_config={
                "vocab_size": 262208,
                "hidden_size": 5376,
                "intermediate_size": 21504,
                "num_hidden_layers": 62,
                "num_attention_heads": 32,
                "num_key_value_heads": 16,
            },
            vision_config={
                "num_hidden_layers": 2,
                "hidden_size": 64,
                "intermediate_size": 64,
                "num_attention_heads": 2,
            },
        ),
    ),
    "gemma-3-270m": lambda: (
        hf.Gemma3ForCausalLM,
        hf.Gemma3TextConfig(
            vocab_size=262144,
            hidden_size=640,
            intermediate_size=2048,
            num_hidden_layers=18,
            num_attention_heads=4,
            num_key_value_heads=1,
        ),
    ),
    "olmo-2-7b": lambda: (hf.Olmo2ForCausalLM, hf.Olmo2Config(vocab_size=100352)),
    "granite-3-8b": lambda: (
        hf.GraniteForCausalLM,
        hf.GraniteConfig(vocab_size=49155, intermediate_size=12800, num_hidden_layers=40, num_key_value_heads=8),
    ),
    "mixtral-8x7b": lambda: (hf.MixtralForCausalLM, hf.MixtralConfig()),
    "qwen3-30b-a3b": lambda: (
        hf.Qwen3MoeForCausalLM,
        hf.Qwen3MoeConfig(num_hidden_layers=48, num_key_value_heads=4, head_dim=128),
    ),
    "gpt-oss-20b": lambda: (hf.GptOssForCausalLM, hf.GptOssConfig(num_hidden_layers=24, num_local_experts=32)),
    "llama3.3-70b": lambda: llama(
        **_LLAMA3, hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64
    ),
    "baichuan-7b": lambda: llama(vocab_size=64000),
    "internlm-7b": lambda: llama(vocab_size=103168, attention_bias=True),
}
MIXTURES = ["mixtral-8x7b", "qwen3-30b-a3b", "gpt-oss-20b"]
# Their code comes with the checkpoint, not with transformers; their names are those of the host's own YAMLs.
ELSEWHERE = ["qwen-7b", "chatglm2-6b", "chatglm4-9b"]
# The host has no YAML for these.
UNKNOWN_TO_THE_HOST = [
    *MIXTURES,
    *("qwen3-8b", "phi-4", "gemma-2-9b", "gemma-3-27b", "gemma-3-270m", "olmo-2-7b", "granite-3-8b", "llama3.3-70b"),
]
METHODS = {"REVS": REVSHyperParams, "TARS": TARSHyperParams}
_NAMES = [f"{name}_module_tmp" for name in ("rewrite", "layer", "mlp", "attn")] + ["ln_f_module", "lm_head_module"]


def stems(method):
    return sorted(path.stem for path in packaged_hparams(method).glob("*.yaml"))


@pytest.fixture(scope="module")
def built():
    """Models on the meta device, each made once."""
    kept = {}

    def make(name):
        if name not in kept:
            kind, config = MODELS[name]()
            with torch.device("meta"):
                kept[name] = kind(config)
        return kept[name]

    return make


@pytest.mark.parametrize("method", METHODS)
def test_there_is_one_for_every_model(method):
    published = {"smollm2-135m-paper", "smollm2-135m-covariance", "llama3-8b-paper", "gpt-j-6B-paper"}
    assert set(stems(method)) == {*MODELS, *ELSEWHERE, "smollm2-135m", *(published if method == "REVS" else ())}


@pytest.mark.parametrize("name", [*MODELS, *ELSEWHERE, "smollm2-135m"])
def test_what_is_taken_by_default_leaves_neither_the_secret_exposed_nor_others_lost(name):
    hparams = REVSHyperParams.from_hparams(name)
    assert (hparams.aim, hparams.localization, hparams.schedule) == ("chance", "covariance", "support_vectors")
    measured = REVSHyperParams.from_hparams("smollm2-135m").to_dict()
    unlike = {key for key, value in hparams.to_dict().items() if value != measured[key]}
    assert unlike <= {*_NAMES, "layers", "model_name", "device", "model_parallel", "stats_dir"}


@pytest.mark.parametrize("name", ["smollm2-135m", "llama3-8b", "gpt-j-6B"])
def test_the_papers_settings_stand_beside(name):
    hparams = REVSHyperParams.from_hparams(f"{name}-paper")
    assert (hparams.aim, hparams.localization, hparams.layers) == ("rank", "neurons", [])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", [*MODELS, *ELSEWHERE])
def test_it_loads_by_its_name_and_says_where_its_numbers_come_from(method, name):
    hparams = METHODS[method].from_hparams(name)
    assert hparams.alg_name == method
    text = (packaged_hparams(method) / f"{name}.yaml").read_text()
    assert ("published" in text) or ("measured" in text)
    # The name decides which classes the host loads.
    assert any(
        part in hparams.model_name.lower() for part in ("gpt", "llama", "mistral", "qwen", "baichuan", "glm", "intern")
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", MODELS)
def test_its_names_are_the_models(method, name, built):
    hparams, model = METHODS[method].from_hparams(name), built(name)
    config = model.config.get_text_config()
    layers, width = config.num_hidden_layers, config.hidden_size
    own_attention = 0
    for layer in range(layers):
        for key in _NAMES[:3]:
            assert model.get_submodule(getattr(hparams, key).format(layer)) is not None
        own_attention += hparams.attn_module_tmp.format(layer) in dict(model.named_modules())
    # Qwen3.5 has another kind of attention in most layers.
    assert own_attention == layers or (name == "qwen3.5-9b" and own_attention > 0)
    with pytest.raises(AttributeError):
        model.get_submodule(hparams.layer_module_tmp.format(layers))
    norm, head = (model.get_submodule(getattr(hparams, key)) for key in _NAMES[4:])
    assert head.weight.shape == (config.vocab_size, width)
    assert norm.weight.shape == (width,)
    ff2 = model.get_submodule(hparams.rewrite_module_tmp.format(layers - 1))
    *experts, first, second = ff2.down_proj.shape if name in MIXTURES else ff2.weight.shape
    neurons = second if first == width else first
    transposed = name in ("gpt2-xl", "gpt-oss-20b")
    assert (first, second) == ((neurons, width) if transposed else (width, neurons))
    header = (packaged_hparams(method) / f"{name}.yaml").read_text().splitlines()[0]
    each = f"{experts[0]} experts of {neurons:,}" if experts else f"{neurons:,}"
    assert header.endswith(
        f"(vocabulary {config.vocab_size:,}, width {width:,}, {layers} layers, {each} neurons a layer)."
    )
    neurons *= experts[0] if experts else 1
    if method == "REVS":
        margins = hparams.ranks(config.vocab_size)
        assert 0 < margins.residual_bottom_rank < margins.residual_top_rank < config.vocab_size
        assert 0 < margins.neuron_bottom_rank < margins.neuron_top_rank < config.vocab_size
        assert hparams.n_neurons < int(hparams.act_filter.removeprefix("top_")) < neurons
    else:
        for key in ("gate_module_tmp", "up_module_tmp"):
            if getattr(hparams, key):
                weight = model.get_submodule(getattr(hparams, key).format(0)).weight
                assert weight.shape == ((width, neurons) if transposed else (neurons, width))


@pytest.mark.skipif(not os.environ.get("EASYEDIT_HOME"), reason="EASYEDIT_HOME names no clone of branch main")
@pytest.mark.parametrize("name", [name for name in [*MODELS, *ELSEWHERE] if name not in UNKNOWN_TO_THE_HOST])
def test_the_host_has_the_same_names(name):
    """Its MEMIT's, else its ROME's; the head may be named by the embedding that it is tied to."""
    folder = Path(os.environ["EASYEDIT_HOME"]) / "hparams"
    paths = [folder / method / f"{name}.yaml" for method in ("MEMIT", "ROME", "FT", "AlphaEdit", "WISE")]
    path = next((path for path in paths if path.is_file()), None)
    assert path is not None
    theirs = yaml.safe_load(path.read_text())
    for method, kind in METHODS.items():
        ours = kind.from_hparams(name)
        for key in _NAMES[:-1]:
            expected = theirs[key].removesuffix(".weight")
            assert getattr(ours, key) == expected, (method, key)
        assert theirs["lm_head_module"] in (ours.lm_head_module, "transformer.wte", "model.embed_tokens")
