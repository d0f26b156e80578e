"""Does a secret come back when the edited model is merged with another one?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ..errors import InputError
from ..model.adapters import base_model
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
    if not mergeable(model, other):
        raise InputError("The model to merge with has other weights; give one of the same architecture.")
    weights = dict(base_model(other).named_parameters())
    own = dict(base_model(model).named_parameters())

    def towards(target: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda weight: torch.lerp(weight.float(), target.to(weight.device).float(), share).to(weight.dtype)

    with replaced_weights((value, towards(weights[name].detach())) for name, value in own.items()):
        yield


def mergeable(model: nn.Module, other: nn.Module) -> bool:
    """Whether two models have weights of the same names and shapes."""
    shapes, others = (
        {name: value.shape for name, value in base_model(each).named_parameters()} for each in (model, other)
    )
    return shapes == others


def measure_merged(run: EvaluationRun) -> None:
    """Scores the secrets halfway to the model that never learned them, where that is of the same architecture."""
    if run.never_learned is None or not mergeable(run.model, run.never_learned):
        return
    with merged(run.model, run.never_learned):
        run.score("merging", run.prompts, run.everyone)
