"""What a model says next."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..decoder import evaluating


@torch.no_grad()
def greedy_continuation(model: nn.Module, tok: Any, prompt: str, max_new_tokens: int = 8) -> str:
    """Returns the text that greedy decoding puts after a prompt, without the prompt, cut at the end-of-text token."""
    encoded = tok(prompt, return_tensors="pt")
    device = model.get_input_embeddings().weight.device  # type: ignore[operator]
    ids = encoded["input_ids"].to(device)
    with evaluating(model):
        out = model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=encoded["attention_mask"].to(device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=tok.pad_token_id if tok.pad_token_id is not None else tok.eos_token_id,
        )
    text: str = tok.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    return text
