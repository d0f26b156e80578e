"""A language model whose logits are written by hand: what comes next depends on the last character alone."""

from types import SimpleNamespace

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast

CHARACTERS = [" ", "-", "@", *"0123456789", *"abcdefghijklmnopqrstuvwxyz"]


def character_tokenizer(**special):
    """A token for each character; `special` names those that are."""
    vocabulary = {character: index for index, character in enumerate(CHARACTERS)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=" "))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token=" ", pad_token="-", **special)


def byte_tokenizer():
    """A token for each byte, as GPT-2 writes them."""
    made = Tokenizer(
        models.BPE({letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, [])
    )
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made)


def sentencepiece_tokenizer(pieces):
    """Pieces of words with their spaces, as SentencePiece writes them; every single character is one as well."""
    every = {*pieces, *(character for piece in pieces for character in piece), "a", "▁"}
    # The longer a piece, the better.
    made = Tokenizer(models.Unigram([("<unk>", -100.0), *((piece, -1.0) for piece in sorted(every))], unk_id=0))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")


class Bigram(nn.Module):
    """Logits of the next character by the last one; 0 where nothing else is said."""

    def __init__(self, following, end=None):
        """Takes logits by pairs of characters, "*" in front stands for every character; and what ends a text."""
        super().__init__()
        self.end = end
        size = len(CHARACTERS)
        self.embedding, self.head = nn.Embedding(size, size), nn.Linear(size, size, bias=False)
        self.config = SimpleNamespace(model_type="bigram")
        with torch.no_grad():
            self.embedding.weight.copy_(torch.eye(size))
            self.head.weight.zero_()
            for (last, character), logit in sorted(following.items(), key=lambda item: item[0][0] != "*"):
                column = slice(None) if last == "*" else CHARACTERS.index(last)
                self.head.weight[CHARACTERS.index(character), column] = logit

    def get_input_embeddings(self):
        """The embedding."""
        return self.embedding

    def get_output_embeddings(self):
        """The head."""
        return self.head

    def forward(self, input_ids, **_options):
        """Logits behind every position."""
        return SimpleNamespace(logits=self.head(self.embedding(input_ids)))

    def generate(self, input_ids, max_new_tokens, pad_token_id=0, return_dict_in_generate=False, **_options):
        """Greedy decoding; with the logits of every step where they are asked for."""
        steps = []
        ended = torch.zeros(len(input_ids), 1, dtype=torch.bool)
        for _ in range(max_new_tokens):
            steps.append(self(input_ids).logits[:, -1])
            said = torch.where(ended, pad_token_id, steps[-1].argmax(dim=-1, keepdim=True))
            ended |= torch.tensor([[self.end is not None and CHARACTERS[token] == self.end] for token in said[:, 0]])
            input_ids = torch.cat([input_ids, said], dim=1)
        return SimpleNamespace(sequences=input_ids, logits=tuple(steps)) if return_dict_in_generate else input_ids
