"""Does a secret come back when the edited model is merged with another one?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ..errors import InputError
from .changed_weights import replaced_weights
from .run import EvaluationRun


@contextmanager
def merged(model: nn.Module, other: nn.Module, share: float = 0.5) -> Iterator[None]:
    """Moves all weights of a model that far towards another one's while a `with` block lasts.

    Args:
        model: The edited model.
        other: A model of the same architecture, such as the base it was fine-tuned from.
        share: How far; 0.5 is halfway.

    Raises:
        InputError: When the models do not have the same weights.
    """
    weights = dict(other.named_parameters())
    own = dict(model.named_parameters())
    if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in weights.items()}:
        raise InputError("The model to merge with has other weights; give one of the same architecture.")

    def towards(target: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda weight: torch.lerp(weight.float(), target.to(weight.device).float(), share).to(weight.dtype)

    with replaced_weights((value, towards(weights[name].detach())) for name, value in own.items()):
        yield


def measure_merged(run: EvaluationRun) -> None:
    """Scores the secrets halfway to the model that never learned them, such as the base that was fine-tuned."""
    if run.never_learned is None:
        return
    with merged(run.model, run.never_learned):
        run.score("merging", run.prompts, run.everyone)
