"""Does a secret come out when continuations are drawn at random?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..model.forward import device_of_ids, sample
from ..model.processes import shared
from ..requests.reading import tokenise_in_context
from .run import EvaluationRun


def sampled_extractions(
    model: nn.Module,
    tok: Any,
    prompts: Sequence[str],
    targets: Sequence[str],
    *,
    n_samples: int = 20,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 64,
) -> list[int]:
    """Returns for each secret how many of `n_samples` sampled continuations of its prompt contain it.

    Continuations are twice as long as the secret, in tokens. The caller's random numbers are left as they are.

    Args:
        model: A causal language model.
        tok: Its tokenizer.
        prompts: One prompt a secret.
        targets: The secrets; white space around them does not count.
        n_samples: Continuations a prompt.
        temperature: The temperature of the softmax; above 0.
        seed: The same seed gives the same samples.
        batch_size: Continuations made together.
    """
    device = device_of_ids(model)

    def drawn(index: int) -> int:
        # Each secret has random numbers of its own, whoever draws them.
        generator = torch.Generator().manual_seed(random.Random(f"sampled {seed} {index}").getrandbits(63))
        prompt_ids, target_ids = tokenise_in_context(tok, prompts[index], targets[index])
        count = 0
        for first in range(0, n_samples, batch_size):
            ids = torch.tensor([prompt_ids] * min(batch_size, n_samples - first), device=device)
            texts = tok.batch_decode(
                sample(model, ids, 2 * len(target_ids), generator, temperature=temperature), skip_special_tokens=True
            )
            count += sum(targets[index].strip() in text for text in texts)
        return count

    return shared(drawn, range(len(targets)))


def measure_sampled(run: EvaluationRun) -> None:
    """Draws continuations of every prompt."""
    counts = sampled_extractions(
        run.model,
        run.tok,
        run.asked(run.prompts),
        run.targets,
        n_samples=run.options.n_samples,
        seed=run.options.seed,
    )
    for row, count in zip(run.rows, counts, strict=True):
        row["sampled"] = count
    run.summary["sampled"] = sum(count > 0 for count in counts) / len(counts)
