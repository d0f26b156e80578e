"""A language model whose logits are written by hand: what comes next depends on the last character alone."""

from types import SimpleNamespace

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast

CHARACTERS = [" ", "-", "@", *"0123456789", *"abcdefghijklmnopqrstuvwxyz"]


def character_tokenizer():
    """A token for each character."""
    vocabulary = {character: index for index, character in enumerate(CHARACTERS)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=" "))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token=" ", pad_token="-")


class Bigram(nn.Module):
    """Logits of the next character by the last one; 0 where nothing else is said."""

    def __init__(self, following):
        """Takes logits by pairs of characters; "*" in front stands for every character."""
        super().__init__()
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

    def generate(self, input_ids, max_new_tokens, **_options):
        """Greedy decoding, with the logits of every step."""
        steps = []
        for _ in range(max_new_tokens):
            steps.append(self(input_ids).logits[:, -1])
            input_ids = torch.cat([input_ids, steps[-1].argmax(dim=-1, keepdim=True)], dim=1)
        return SimpleNamespace(sequences=input_ids, logits=tuple(steps))
