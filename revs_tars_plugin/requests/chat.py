"""Prompts of chat models: what a user says, put through the tokenizer's own template."""

from __future__ import annotations

from typing import Any

from ..errors import InputError


def asked_prompt(tok: Any, prompt: str, chat_template: bool) -> str:
    """Returns a prompt as the model gets it: in the tokenizer's chat template where that is asked for, or as it is."""
    return chat_prompt(tok, prompt) if chat_template else prompt


def chat_prompt(tok: Any, prompt: str) -> str:
    """Returns the text behind which a chat model answers a prompt.

    Args:
        tok: A tokenizer with a chat template.
        prompt: What the user says.

    Returns:
        The template's text, without the BOS token where the tokenizer adds one by itself.

    Raises:
        InputError: When the tokenizer has no chat template.
    """
    if not getattr(tok, "chat_template", None):
        raise InputError(
            "chat_template is true, but the tokenizer has no chat template; leave it out, or load the model with a "
            "tokenizer that has one."
        )
    text: str = tok.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    begins_itself = tok.bos_token and tok("x")["input_ids"][:1] == [tok.bos_token_id]
    return text.removeprefix(tok.bos_token) if begins_itself else text
