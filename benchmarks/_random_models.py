"""Random models whose words are numbers, with what they say next: measured where no checkpoint can be had."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from _measuring import SETTINGS
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from revs_tars_plugin import REVSHyperParams

PROMPT, TARGET = 20, 2
# Ordinary text: as many texts of as many words as the packaged settings read.
TEXTS, WORDS = 64, 128


@dataclass(frozen=True)
class Shape:
    """A Llama's size."""

    width: int
    ff_width: int
    layers: int
    vocabulary: int
    dtype: torch.dtype = torch.float32

    @property
    def parameters(self) -> int:
        """Of the layers, with full attention; the embeddings are looked up, the head is counted where it is used."""
        return self.layers * (4 * self.width**2 + 3 * self.width * self.ff_width)


SHAPES = {
    "small": Shape(256, 1024, 4, 16_384),
    "135M": Shape(576, 1536, 30, 49_152),
    "1B": Shape(2048, 8192, 16, 128_256, torch.bfloat16),
    "8B": Shape(4096, 14_336, 32, 128_256, torch.bfloat16),
    "70B": Shape(8192, 28_672, 80, 128_256, torch.bfloat16),
}


@dataclass(frozen=True)
class Prepared:
    """A random model with its tokenizer, what it says, and settings with ordinary text."""

    model: LlamaForCausalLM
    tok: PreTrainedTokenizerFast
    requests: list[dict[str, str]]
    folder: Path

    @classmethod
    def of(cls, shape: Shape, count: int, device: torch.device, folder: Path) -> Prepared:
        """Makes it."""
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            intermediate_size=shape.ff_width,
            num_hidden_layers=shape.layers,
            num_attention_heads=max(1, shape.width // 64),
            num_key_value_heads=max(1, shape.width // 64),
            initializer_range=0.05,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=0,
            _name_or_path="scaling",
        )
        before = torch.get_default_dtype()
        torch.set_default_dtype(shape.dtype)
        try:
            with device:
                model = LlamaForCausalLM(config).eval()
        finally:
            torch.set_default_dtype(before)
        tok = numbers_as_words(shape.vocabulary)
        text = folder / "text.txt"
        places = torch.randint(1, len(tok), (TEXTS, WORDS), generator=torch.Generator().manual_seed(1))
        text.write_text("\n".join(tok.decode(row) for row in places.tolist()), encoding="utf-8")
        return cls(model, tok, said_next(model, tok, count), folder)

    def settings(self, name: str) -> REVSHyperParams:
        """The packaged settings, with this model's layers in place of SmolLM2's: as many, its last ones."""
        packaged = REVSHyperParams.from_hparams(SETTINGS[name])
        layers = self.model.config.num_hidden_layers
        last = range(max(0, layers - len(packaged.layers)), layers)
        return replace(
            packaged,
            layers=list(last)[-4:] if name == "joint" else list(last),
            mom2_dataset=str(self.folder / "text.txt"),
            mom2_n_samples=TEXTS,
            stats_dir=str(self.folder),
        )


def numbers_as_words(vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer whose words are numbers of as many digits as fit, so that every made-up word is one of its own."""
    digits = int(math.log10(vocabulary - 1))
    words = ["<s>", *(f"{number:0{digits}d}" for number in range(10**digits))]
    backend = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<s>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="<s>", unk_token="<s>")


@torch.no_grad()
def said_next(model: LlamaForCausalLM, tok: PreTrainedTokenizerFast, count: int) -> list[dict[str, str]]:
    """Random prompts with the likeliest words behind them."""
    generator, found = torch.Generator().manual_seed(2), []
    device = model.get_input_embeddings().weight.device
    for start in range(0, count, 256):
        prompts = torch.randint(1, len(tok), (min(256, count - start), PROMPT), generator=generator)
        ids = prompts.to(device)
        for _ in range(TARGET):
            logits = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1, 1 : len(tok)]
            ids = torch.cat([ids, logits.argmax(dim=-1, keepdim=True) + 1], dim=1)
        for row in ids.tolist():
            found.append({"prompt": tok.decode(row[:PROMPT]), "forget": tok.decode(row[PROMPT:])})
    return found
