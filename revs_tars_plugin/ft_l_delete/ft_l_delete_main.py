"""FT-L-delete: fine-tuning of FF2 that lowers what must be forgotten, within a box around the weights.

The deleting form of the constrained fine-tuning of Zhu et al. (arXiv 2012.00363), which the REVS paper compares with
(its section 5). It stands here for comparison, not as a recommendation.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import trange

from ..batching import by_length
from ..decoder import Decoder, FeedForwardMatrix
from ..edits import EditSet, applied
from ..forward import gradients_for
from ..requests import read_requests
from ..unlikelihood import unlikelihood
from ..weight_edits import NeuronEdit
from .ft_l_delete_hparams import FTLDeleteHyperParams

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingOutcome:
    """What the training came to.

    Attributes:
        request: The request's place in the call.
        before: Mean probability of its tokens before.
        after: And at the end.
        steps: Passes over the requests, of all of them together.
    """

    request: int
    before: float
    after: float
    steps: int


def apply_ft_l_delete_to_model(
    model: nn.Module,
    tok: Any,
    requests: Sequence[Mapping[str, Any]],
    hparams: FTLDeleteHyperParams,
    copy: bool = False,
    return_orig_weights: bool = False,
    cache_template: str | None = None,
    keep_original_weight: bool = False,
    **kwargs: Any,
) -> tuple[nn.Module, Mapping[str, Tensor]]:
    """Edits a model so that it no longer gives the secrets of the requests; the host's contract.

    Args:
        model: A causal language model.
        tok: Its tokenizer.
        requests: The host's request dictionaries; see `read_requests` for what is forgotten.
        hparams: The settings.
        copy: Edit a copy and leave `model` alone.
        return_orig_weights: Return what restores the weights.
        cache_template: Taken for the host's sake.
        keep_original_weight: Taken for the host's sake; `return_orig_weights` decides.
        **kwargs: Taken for the host's sake.

    Returns:
        The edited model, and the original weights by name (empty without `return_orig_weights`). The second has the
        `EditSet` in its attribute `edits`.

    Raises:
        InputError: As `execute_ft_l_delete`; no weight has changed then.
    """
    return applied(
        model,
        lambda edited: execute_ft_l_delete(edited, tok, requests, hparams),
        copy=copy,
        return_orig_weights=return_orig_weights,
    )


def execute_ft_l_delete(
    model: nn.Module,
    tok: Any,
    requests: Sequence[Mapping[str, Any]],
    hparams: FTLDeleteHyperParams,
    *,
    progress: bool = False,
) -> EditSet:
    """Trains FF2 of the chosen layers on the unlikelihood of all secrets; all weights are as before when it returns.

    Args:
        model: A causal language model; put back to the bit, also when training fails or is interrupted.
        tok: Its tokenizer.
        requests: The host's request dictionaries.
        hparams: The settings.
        progress: Show a progress bar.

    Returns:
        The edit, with one `TrainingOutcome` per request.

    Raises:
        InputError: When a request, a setting or the model cannot be used.
    """
    hparams.validate()
    decoder = Decoder(model, hparams)
    secrets = read_requests(requests, tok, context_length=decoder.context_length)
    pairs = [(secret.prompt_ids, secret.target_ids) for secret in secrets]
    weights = [matrix.weight for matrix in decoder.ff2.values()]
    before = [weight.detach().clone() for weight in weights]
    try:
        with gradients_for(model, weights):
            first, last, steps = _train(model, pairs, weights, before, hparams, progress)
        after = [weight.detach().clone() for weight in weights]
    finally:
        with torch.no_grad():
            for weight, old in zip(weights, before, strict=True):
                weight.copy_(old)
    outcomes = tuple(TrainingOutcome(i, first[i], last[i], steps) for i in range(len(pairs)))
    if max(last) > hparams.goal_probability:
        LOG.warning(
            "FT-L-delete: a secret still has probability %.3g after %d steps; raise num_steps or norm_constraint.",
            max(last),
            steps,
        )
    edits = tuple(_edit(*change) for change in zip(decoder.ff2.values(), before, after, strict=True))
    return EditSet("FT-L-delete", edits, outcomes).of_call(requests, hparams.to_dict())


def _train(
    model: nn.Module,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    weights: Sequence[Tensor],
    before: Sequence[Tensor],
    hparams: FTLDeleteHyperParams,
    progress: bool,
) -> tuple[list[float], list[float], int]:
    """Returns the secrets' probabilities before and after, and how many steps were made."""
    optimizer = torch.optim.Adam(weights, lr=hparams.lr)
    batches = by_length([[*prompt, *target] for prompt, target in pairs])
    first: list[float] = []
    for step in trange(hparams.num_steps + 1, desc="training", disable=not progress):
        optimizer.zero_grad(set_to_none=True)
        found = [0.0] * len(pairs)
        for batch in batches:
            loss, probabilities = unlikelihood(model, [pairs[index] for index in batch])
            torch.autograd.backward(loss * (len(batch) / len(pairs)))
            for index, probability in zip(batch, probabilities.tolist(), strict=True):
                found[index] = probability
        first = first or found
        if step == hparams.num_steps or max(found) <= hparams.goal_probability:
            break
        optimizer.step()
        with torch.no_grad():
            for weight, old in zip(weights, before, strict=True):
                weight.clamp_(old - hparams.norm_constraint, old + hparams.norm_constraint)
    return first, found, step


def _edit(matrix: FeedForwardMatrix, before: Tensor, after: Tensor) -> NeuronEdit:
    """The whole matrix, neuron by neuron: fine-tuning leaves none of them alone."""
    old, new = (weight.movedim(matrix.neuron_dim, 0).contiguous().cpu() for weight in (before, after))
    everyone = torch.arange(matrix.width)
    return NeuronEdit(matrix.weight_name, matrix.neuron_dim, everyone, old, new, matrix.width, matrix.transposed)
