"""What a model says next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..model.forward import device_of_ids, evaluating
from ..model.processes import shared
from ..requests.reading import tokenise_in_context


def greedy_continuation(model: nn.Module, tok: Any, prompt: str, max_new_tokens: int = 8) -> str:
    """Returns the text that greedy decoding puts after a prompt, without the prompt, cut at the end-of-text token."""
    return greedy_continuations(model, tok, [prompt], max_new_tokens)[0]


@torch.no_grad()
def greedy_continuations(
    model: nn.Module, tok: Any, prompts: Sequence[str], max_new_tokens: int = 8, batch_size: int = 32
) -> list[str]:
    """Returns what greedy decoding puts after each prompt, many prompts at a time.

    Args:
        model: A causal language model.
        tok: Its tokenizer.
        prompts: Texts of any lengths; they are padded on the left.
        max_new_tokens: How many tokens are decoded.
        batch_size: Prompts decoded together.
    """
    device = device_of_ids(model)
    padding = tok.pad_token_id if tok.pad_token_id is not None else tok.eos_token_id

    def read(start: int) -> list[str]:
        sequences = [tok(prompt)["input_ids"] for prompt in prompts[start : start + batch_size]]
        longest = max(map(len, sequences))
        ids = torch.tensor([[padding or 0] * (longest - len(sequence)) + sequence for sequence in sequences])
        mask = torch.tensor([[0] * (longest - len(sequence)) + [1] * len(sequence) for sequence in sequences])
        with evaluating(model):
            out = model.generate(  # type: ignore[operator]
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=padding,
            )
        texts: list[str] = tok.batch_decode(out[:, longest:], skip_special_tokens=True)
        return texts

    return [text for texts in shared(read, range(0, len(prompts), batch_size)) for text in texts]


def still_generated(
    model: nn.Module, tok: Any, prompts: Sequence[str], targets: Sequence[str], batch_size: int = 32
) -> list[bool]:
    """Returns for each prompt whether greedy decoding goes on with its target.

    Args:
        model: A causal language model.
        tok: Its tokenizer.
        prompts: What leads to the targets.
        targets: One target a prompt; looked for at the beginning of the continuation alone.
        batch_size: Prompts decoded together.
    """
    longest = max(len(tokenise_in_context(tok, *pair)[1]) for pair in zip(prompts, targets, strict=True))
    said = greedy_continuations(model, tok, prompts, longest + 1, batch_size)
    return [text.strip().startswith(target.strip()) for text, target in zip(said, targets, strict=True)]
