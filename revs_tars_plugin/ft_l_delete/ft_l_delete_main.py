"""FT-L-delete: fine-tuning of FF2 that lowers what must be forgotten, within a box around the weights.

The deleting form of the constrained fine-tuning of Zhu et al. (arXiv 2012.00363), which the REVS paper compares with
(its section 5). It stands here for comparison, not as a recommendation.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import trange

from ..edits.apply import apply_function
from ..edits.edit_set import EditSet
from ..edits.weight_edits import NeuronEdit
from ..errors import InputError
from ..model.decoder import Decoder
from ..model.expert_names import ExpertName
from ..model.forward import batches_by_length, gradients_for
from ..model.matrices import FeedForwardMatrix
from ..requests.reading import read_requests
from .ft_l_delete_hparams import FTLDeleteHyperParams
from .outcomes import TrainingOutcome
from .unlikelihood import unlikelihood

LOG = logging.getLogger(__name__)


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
        The edit, with one `TrainingOutcome` per secret.

    Raises:
        InputError: When a request, a setting or the model cannot be used.
    """
    hparams.validate()
    decoder = Decoder.of(model, hparams)
    secrets = read_requests(requests, tok, context_length=decoder.context_length, **hparams.request_options)
    pairs = [(secret.prompt_ids, secret.target_ids) for secret in secrets]
    if any(parameter.is_meta for ff2 in decoder.ff2.values() for parameter in ff2.module.parameters()):
        raise InputError(
            "FT-L-delete trains weights, and those of a layer to edit are offloaded; load the model without that, or "
            "use REVS."
        )
    matrices = [matrix for ff2 in decoder.ff2.values() for matrix in ff2.matrices]
    by_name = {ExpertName.whole(matrix.weight_name): matrix.parameter for matrix in matrices}
    weights = list(by_name.values())
    before = [weight.detach().clone() for weight in weights]
    try:
        with gradients_for(model, weights):
            first, last, steps = _train(model, pairs, weights, before, hparams, progress=progress)
        after = [weight.detach().clone() for weight in weights]
    finally:
        with torch.no_grad():
            for weight, old in zip(weights, before, strict=True):
                weight.copy_(old)
    outcomes = tuple(
        TrainingOutcome(secret.request, first[index], last[index], goal=hparams.goal_probability, steps=steps)
        for index, secret in enumerate(secrets)
    )
    if max(last) > hparams.goal_probability:
        LOG.warning(
            "FT-L-delete: a secret still has probability %.3g after %d steps; raise num_steps or norm_constraint.",
            max(last),
            steps,
        )
    versions = dict(zip(by_name, zip(before, after, strict=True), strict=True))
    edits = tuple(
        # The whole matrix, neuron by neuron: fine-tuning leaves none of them alone. Experts that no secret reached are
        # as they were.
        NeuronEdit.of(matrix, torch.arange(matrix.width), *rows)
        for matrix in matrices
        if not torch.equal(*(rows := [_rows(matrix, each) for each in versions[ExpertName.whole(matrix.weight_name)]]))
    )
    return EditSet(hparams.ALGORITHM, edits, outcomes).of_call(requests, hparams.to_dict())


apply_ft_l_delete_to_model = apply_function(execute_ft_l_delete)


def _train(
    model: nn.Module,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    weights: Sequence[Tensor],
    before: Sequence[Tensor],
    hparams: FTLDeleteHyperParams,
    *,
    progress: bool,
) -> tuple[list[float], list[float], int]:
    """Returns the secrets' probabilities before and after, and how many steps were made."""
    optimizer = torch.optim.Adam(weights, lr=hparams.lr)
    batches = batches_by_length([[*prompt, *target] for prompt, target in pairs])
    first: list[float] = []
    for step in trange(hparams.num_steps + 1, desc="training", disable=not progress):
        optimizer.zero_grad(set_to_none=True)
        latest = [0.0] * len(pairs)
        for batch in batches:
            loss, probabilities = unlikelihood(model, [pairs[index] for index in batch])
            torch.autograd.backward(loss * (len(batch) / len(pairs)))
            for index, probability in zip(batch, probabilities.tolist(), strict=True):
                latest[index] = probability
        first = first or latest
        if step == hparams.num_steps or max(latest) <= hparams.goal_probability:
            break
        optimizer.step()
        with torch.no_grad():
            for weight, old in zip(weights, before, strict=True):
                weight.clamp_(old - hparams.norm_constraint, old + hparams.norm_constraint)
    return first, latest, step


def _rows(matrix: FeedForwardMatrix, weight: Tensor) -> Tensor:
    """A copy of the matrix's part of a parameter with one neuron a row."""
    part = weight if matrix.expert is None else weight[matrix.expert]
    return part.movedim(matrix.neuron_dim, 0).contiguous()
