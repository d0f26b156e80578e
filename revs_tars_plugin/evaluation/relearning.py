"""Does the rest come back when a model is taught a few of the things it forgot?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..data.memorised import memorise
from ..requests.reading import join
from .concepts import RELEARNED, held_out_prompts, name_probabilities
from .run import EvaluationRun, mean
from .scores import output_scores

Result = TypeVar("Result")


def after_relearning(
    model: nn.Module,
    tok: Any,
    texts: Sequence[str],
    measure: Callable[[nn.Module], Result],
    *,
    epochs: int = 3,
    learning_rate: float = 5e-5,
    seed: int = 0,
) -> Result:
    """Fine-tunes the model on some forgotten items, measures, and puts every weight back to the bit.

    Args:
        model: The edited model.
        tok: Its tokenizer.
        texts: Prompts with their secrets behind them: those that the attacker has.
        measure: Called with the fine-tuned model; asks for *other* forgotten items.
        epochs: Passes over the texts.
        learning_rate: The learning rate of AdamW.
        seed: Seed of their order.

    Returns:
        What `measure` returns.
    """
    before = [(parameter, parameter.detach().clone()) for parameter in model.parameters()]
    training = [module for module in model.modules() if module.training]
    try:
        # Dropout, where a model has it, draws from the global generators.
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            memorise(model, tok, texts, epochs=epochs, learning_rate=learning_rate, seed=seed)
        return measure(model)
    finally:
        with torch.no_grad():
            for parameter, old in before:
                parameter.copy_(old)
                parameter.grad = None
        model.eval()
        for module in training:
            module.training = True


def measure_relearned(run: EvaluationRun) -> None:
    """Teaches every second secret and asks for the others."""
    others = run.everyone[1::2]
    if not others:
        return
    texts = [join(*pair) for pair in zip(run.asked(run.prompts[::2]), run.targets[::2], strict=True)]
    probes = run.probes(run.prompts, others)

    def ask(model: nn.Module) -> tuple[Tensor, list[bool]]:
        scores = output_scores(model, probes, run.options.k, run.options.batch_size)
        return scores, run.generated([run.prompts[i] for i in others], [run.targets[i] for i in others])

    scores, said = after_relearning(run.model, run.tok, texts, ask, seed=run.options.seed)
    run.keep("relearning", scores, others)
    run.summary["relearning, said"] = mean(said)


def measure_neighbours_relearned(run: EvaluationRun) -> None:
    """Teaches what is near the concepts, as an attacker may who has nothing of them, and asks for their names.

    PISCES (arXiv 2505.22586) measures how concepts withstand relearning; what is taught here is chosen by this project.
    """
    near = [pair for concept in run.concepts for pair in concept.neighbours]
    if not near:
        return
    texts = [
        join(*pair) for pair in zip(run.asked([prompt for prompt, _ in near]), [end for _, end in near], strict=True)
    ]

    def ask(model: nn.Module) -> float:
        return mean(
            [
                mean(name_probabilities(model, run.tok, held_out_prompts(run, concept), concept.name))
                for concept in run.concepts
            ]
        )

    run.summary[RELEARNED] = after_relearning(run.model, run.tok, texts, ask, seed=run.options.seed)
