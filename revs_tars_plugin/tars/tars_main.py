"""TARS: targeted angular reversal of weights (Davies, Iacovides, Mandic; arXiv 2412.10257)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..edits.apply import apply_function
from ..edits.edit_set import EditSet
from ..edits.trial import TrialEdits
from ..errors import InputError
from ..model.decoder import Decoder
from ..model.packed import unpacked
from ..moments.ordinary_text import TextSource
from ..moments.second_moments import ordinary_moments
from .common_state import mean_state
from .concepts import read_concepts
from .matrices import MATRIX_KEYS, detector_matrices, matrices_of
from .name_detectors import NameDetectors
from .outcomes import ConceptOutcome, report
from .prompts import written_prompts
from .remover import ConceptRemover
from .tars_hparams import TARSHyperParams

# Texts, and the most tokens of each, whose mean state counts as what all states have in common.
_COMMON_TEXTS, _COMMON_TOKENS = 64, 64


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
        requests: The host's request dictionaries; see `read_concepts`.
        hparams: The settings.
        progress: Show a progress bar.

    Returns:
        The edit of all concepts together, with one `ConceptOutcome` per concept.

    Raises:
        InputError: When a request, a setting or the model cannot be used.
    """
    hparams.validate()
    names = [hparams.rewrite_module_tmp, *(getattr(hparams, MATRIX_KEYS[matrix]) for matrix in hparams.matrices)]
    firsts = [getattr(hparams, MATRIX_KEYS[matrix]) for matrix in detector_matrices(hparams)]
    with (
        unpacked(model, names, hparams.layers) as packed,
        unpacked(model, firsts, [hparams.name_layer, hparams.spelling_layer]) as firsts_packed,
    ):
        edits = _edits(model, tok, requests, hparams, progress=progress)
    return edits.of_call(requests, hparams.to_dict(), packed=packed or firsts_packed)


def _edits(
    model: nn.Module, tok: Any, requests: Sequence[Mapping[str, Any]], hparams: TARSHyperParams, *, progress: bool
) -> EditSet:
    decoder = Decoder.of(model, hparams)
    write = written_prompts(decoder, tok, hparams) if hparams.prompts != "given" else None
    concepts = read_concepts(requests, tok, hparams, decoder.context_length, write)
    matrices = matrices_of(decoder, hparams, hparams.matrices, _reversed_layers(decoder, hparams))
    decoder.after_ff2  # noqa: B018 - what cannot be edited exactly is refused before anything is read
    activity = _activity(decoder, tok, hparams) if hparams.reads_moments else {}
    common = None
    if hparams.refine == "noise" and hparams.remove_common:
        source = TextSource(hparams.mom2_dataset, _COMMON_TEXTS, _COMMON_TOKENS, hparams.seed)
        common = mean_state(decoder, tok, source, hparams.concept_layer)
    generator = torch.Generator().manual_seed(hparams.seed)
    outcomes: list[ConceptOutcome] = []
    taken: dict[tuple[int, str], set[int]] = {}
    with TrialEdits() as trial:
        detectors = NameDetectors.of(decoder, tok, hparams, trial)
        for concept in tqdm(concepts, "removing", unit="concept", disable=not progress):
            remover = ConceptRemover(
                decoder=decoder,
                concept=concept,
                hparams=hparams,
                matrices=matrices,
                activity=activity,
                common=common,
                generator=generator,
                trial=trial,
                detectors=detectors,
            )
            outcomes.append(remover.remove(taken))
    for outcome in outcomes:
        report(outcome)
    edits = tuple(edit for outcome in outcomes for edit in outcome.edits.edits)
    return EditSet(hparams.ALGORITHM, edits, tuple(outcomes))


def _reversed_layers(decoder: Decoder, hparams: TARSHyperParams) -> set[int]:
    """The edited layers whose vectors may be reversed."""
    first = decoder.n_layers // 2 if hparams.reversal_layers == "upper" else 0
    layers = {layer for layer in decoder.layers if layer >= first}
    if not layers and "to_name" in hparams.directions:
        raise InputError(
            f'reversal_layers is "upper", but layers names none of the model\'s upper half, {first} to '
            f"{decoder.n_layers - 1}; name one of these there, or set reversal_layers: all."
        )
    return layers


apply_tars_to_model = apply_function(execute_tars)


def _activity(decoder: Decoder, tok: Any, hparams: TARSHyperParams) -> dict[int, Tensor]:
    """The root mean square of every neuron's activation on ordinary text."""
    moments = ordinary_moments(decoder, tok, hparams)
    activity = {}
    for layer, ff2 in decoder.ff2.items():
        squares = [moments.mean_squares(each.weight_name, each.width).clamp_min(0) for each in ff2.matrices]
        # An expert that ordinary text did not reach is not specific to anything: nobody knows what it does.
        reached = torch.cat([part for part in squares if bool(part.any())] or squares)
        activity[layer] = torch.cat(
            [part if bool(part.any()) else reached.mean().expand(len(part)) for part in squares]
        ).sqrt()
    return activity
