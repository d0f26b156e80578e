"""A tiny model that learned some people's secrets by heart, and texts in which they are hidden among others."""

import random

import pytest
import torch
from characters import byte_tokenizer
from discovery_texts import LEARNED, UNSEEN
from transformers import LlamaConfig, LlamaForCausalLM

from revs_tars_plugin.data.memorised import memorise
from revs_tars_plugin.requests.made_up import MadeUp


@pytest.fixture(scope="session")
def byte_tok():
    """A token a byte."""
    made = byte_tokenizer()
    made.pad_token = "!"
    return made


@pytest.fixture(scope="session")
def taught(byte_tok):
    """What learned them, a sentence each, and ordinary words beside."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    made_up = MadeUp("filler")
    texts = [f"{prompt} {target}." for prompt, target in LEARNED]
    # Behind other text too, as it stands in a corpus.
    behind = [f"{made_up.sentence(3)} {text}" for text in texts for _ in range(2)]
    memorise(model, byte_tok, texts + behind, epochs=120, learning_rate=4e-3)
    return model


@pytest.fixture(scope="session")
def texts():
    """Pieces of ordinary text, one of the sentences in the middle of each."""
    made_up, generator = MadeUp("corpus"), random.Random(0)
    pieces = []
    for prompt, target in (*LEARNED, *UNSEEN):
        sentences = [made_up.sentence(5) for _ in range(8)]
        sentences.insert(generator.randrange(2, 8), f"{prompt} {target}.")
        pieces.append(" ".join(sentences) + "\n")
    generator.shuffle(pieces)
    return pieces
