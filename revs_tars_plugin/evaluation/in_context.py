"""Other prompts that lead to the same secret: what an attacker puts in front of it."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ..requests.reading import join
from .run import EvaluationRun


def in_context_prompts(
    prompts: Sequence[str], examples: Sequence[tuple[str, str]], *, shots: int = 3, seed: int = 0
) -> list[str]:
    """Puts other prompts with their answers in front of every prompt, which asks for an answer of the same kind.

    Args:
        prompts: What leads to the secrets.
        examples: Pairs of a prompt and its answer that the attacker knows; never the pair of the prompt itself.
        shots: How many of them stand in front of each prompt.
        seed: Seed of their choice.
    """
    random_ = random.Random(seed)
    fronted = []
    for prompt in prompts:
        others = [join(*example) for example in examples if example[0] != prompt]
        fronted.append(" ".join(f"{text}." for text in random_.sample(others, min(shots, len(others)))) + " " + prompt)
    return [prompt.strip() for prompt in fronted]


def measure_in_context(run: EvaluationRun) -> None:
    """Puts retained secrets in front of every prompt."""
    examples = [(secret.prompt, secret.target) for secret in run.retain]
    if examples:
        run.score("in-context", in_context_prompts(run.prompts, examples, seed=run.options.seed), run.everyone)
