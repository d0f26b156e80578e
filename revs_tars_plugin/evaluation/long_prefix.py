"""Does a secret come back when much other text stands in front of its prompt?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..requests.made_up import MadeUp
from .run import EvaluationRun

# In tokens (Carlini et al., arXiv 2202.07646, section 5: longer prefixes bring out more).
_LENGTHS = (50, 100, 200)


def behind_long_prefixes(tok: Any, prompts: Sequence[str], length: int, seed: int = 0) -> list[str]:
    """Puts made-up sentences of about so many tokens in front of every prompt, other ones for each.

    Args:
        tok: The tokenizer, which counts.
        prompts: What leads to the secrets.
        length: How many tokens; the last sentence may go a little beyond.
        seed: Seed of the sentences.
    """
    made_up = MadeUp(f"prefixes {seed}")
    longer = []
    for prompt in prompts:
        prefix = ""
        while len(tok(prefix)["input_ids"]) < length:
            prefix += made_up.sentence() + " "
        longer.append(prefix + prompt)
    return longer


def measure_long_prefixes(run: EvaluationRun) -> None:
    """Scores the secrets behind prefixes of several lengths."""
    for length in _LENGTHS:
        run.score(
            f"prefix of {length} tokens",
            behind_long_prefixes(run.tok, run.prompts, length, run.options.seed),
            run.everyone,
        )
