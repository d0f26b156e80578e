"""TARS: targeted angular reversal of weights (Davies, Iacovides, Mandic; arXiv 2412.10257)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..decoder import Decoder, FeedForwardMatrix
from ..edits import EditSet, applied
from ..errors import InputError
from ..residual_probe import check_residual
from ..statistics import mean_state, ordinary_moments
from ..trial_edits import TrialEdits
from .concepts import read_concepts
from .remover import ConceptOutcome, ConceptRemover
from .tars_hparams import TARSHyperParams

LOG = logging.getLogger(__name__)

# Texts whose mean state counts as what all states have in common.
_COMMON_TEXTS = 64


def apply_tars_to_model(
    model: nn.Module,
    tok: Any,
    requests: Sequence[Mapping[str, Any]],
    hparams: TARSHyperParams,
    copy: bool = False,
    return_orig_weights: bool = False,
    cache_template: str | None = None,
    keep_original_weight: bool = False,
    **kwargs: Any,
) -> tuple[nn.Module, Mapping[str, Tensor]]:
    """Edits a model so that it no longer gives the concepts of the requests; the host's contract.

    Args:
        model: A causal language model.
        tok: Its tokenizer.
        requests: The host's request dictionaries; see `read_concepts`.
        hparams: The settings.
        copy: Edit a copy and leave `model` alone.
        return_orig_weights: Return what restores the weights.
        cache_template: Taken for the host's sake; TARS caches nothing.
        keep_original_weight: Taken for the host's sake; `return_orig_weights` decides.
        **kwargs: Taken for the host's sake.

    Returns:
        The edited model, and the original weights by name (empty without `return_orig_weights`). The second has the
        `EditSet` in its attribute `edits`.

    Raises:
        InputError: As `execute_tars`; no weight has changed then.
    """
    return applied(
        model,
        lambda edited: execute_tars(edited, tok, requests, hparams),
        copy=copy,
        return_orig_weights=return_orig_weights,
    )


def execute_tars(
    model: nn.Module,
    tok: Any,
    requests: Sequence[Mapping[str, Any]],
    hparams: TARSHyperParams,
    *,
    progress: bool = False,
) -> EditSet:
    """Computes the edit that removes every concept, one after another; all weights are as before when it returns.

    No vector is reversed for two concepts of a call, so each concept's own `EditSet`, in its outcome, can be applied
    and undone without the others.

    Args:
        model: A causal language model; its weights are edited while the function runs and put back to the bit, also
            when it fails or is interrupted.
        tok: Its tokenizer.
        requests: The host's request dictionaries.
        hparams: The settings.
        progress: Show a progress bar.

    Returns:
        The edit of all concepts together, with one `ConceptOutcome` per concept.

    Raises:
        InputError: When a request, a setting or the model cannot be used.
    """
    hparams.validate()
    decoder = Decoder(model, hparams)
    concepts = read_concepts(requests, tok, hparams, decoder.context_length)
    matrices = _matrices(decoder, hparams)
    check_residual(decoder)
    activity = _activity(decoder, tok, hparams) if hparams.reads_moments else {}
    common = None
    if hparams.refine == "noise" and hparams.remove_common:
        common = mean_state(decoder, tok, hparams.mom2_dataset, hparams.concept_layer, _COMMON_TEXTS, hparams.seed)
    generator = torch.Generator().manual_seed(hparams.seed)
    outcomes: list[ConceptOutcome] = []
    taken: dict[tuple[int, str], set[int]] = {}
    with TrialEdits() as trial:
        for concept in tqdm(concepts, "removing", unit="concept", disable=not progress):
            remover = ConceptRemover(decoder, concept, hparams, matrices, activity, common, generator, trial)
            outcomes.append(remover.remove(taken))
    for outcome in outcomes:
        _report(outcome)
    edits = tuple(edit for outcome in outcomes for edit in outcome.edits.edits)
    return EditSet("TARS", edits, tuple(outcomes)).of_call(requests, hparams.to_dict())


def _matrices(decoder: Decoder, hparams: TARSHyperParams) -> dict[tuple[int, str], FeedForwardMatrix]:
    found = {}
    for matrix in dict.fromkeys(hparams.matrices):
        key = f"{matrix}_module_tmp"
        own = decoder.ff2 if matrix == "down" else decoder.first_matrices(key, getattr(hparams, key))
        for layer, weights in own.items():
            if weights.width != decoder.ff2[layer].width:
                raise InputError(
                    f'{key} names "{weights.weight_name}" with {weights.width} vectors, but FF2 has '
                    f"{decoder.ff2[layer].width} neurons: it holds more than the {matrix} matrix; leave {matrix} out "
                    "of matrices."
                )
        found.update({(layer, matrix): weights for layer, weights in own.items()})
    return found


def _activity(decoder: Decoder, tok: Any, hparams: TARSHyperParams) -> dict[int, Tensor]:
    """The root mean square of every neuron's activation on ordinary text."""
    moments = ordinary_moments(decoder, tok, hparams)
    squares = {layer: moments.mean_squares(layer, decoder.ff2[layer].width) for layer in moments}
    return {layer: own.clamp_min(0).sqrt() for layer, own in squares.items()}


def _report(outcome: ConceptOutcome) -> None:
    if not outcome.known:
        LOG.warning(
            'TARS: the model does not know "%s" (probability %.3g on its prompts); nothing was changed for it.',
            outcome.name,
            max(outcome.before),
        )
    elif not outcome.reached:
        LOG.warning(
            'TARS: "%s" ended at probability %.3g instead of %.3g; %s. Raise n_edits or reversal_scale.',
            outcome.name,
            max(outcome.after),
            outcome.goal,
            f"its {outcome.reversed} reversals were kept" if outcome.reversed else "its reversals were rolled back",
        )
