"""Other prompts that lead to the same secret: what an attacker puts in front of it."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ..requests import join


def in_context_prompts(
    prompts: Sequence[str], examples: Sequence[tuple[str, str]], *, shots: int = 3, seed: int = 0
) -> list[str]:
    """Puts other prompts with their answers in front of every prompt, which asks for an answer of the same kind.

    Args:
        prompts: What leads to the secrets.
        examples: Pairs of a prompt and its answer that the attacker knows; never the pair of the prompt itself.
        shots: How many of them stand in front of each prompt.
        seed: Of their choice.
    """
    random_ = random.Random(seed)
    found = []
    for prompt in prompts:
        others = [join(*example) for example in examples if example[0] != prompt]
        found.append(" ".join(f"{text}." for text in random_.sample(others, min(shots, len(others)))) + " " + prompt)
    return [prompt.strip() for prompt in found]
