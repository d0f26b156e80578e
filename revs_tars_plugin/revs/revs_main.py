"""REVS: unlearning by rank editing in the vocabulary space (Ashuach, Tutek, Belinkov; arXiv 2406.09325)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from ..edits.apply import apply_function
from ..edits.edit_set import EditSet
from ..edits.trial import TrialEdits
from ..errors import InputError
from ..model.decoder import Decoder
from ..model.kept_layers import lower_layers_kept
from ..model.packed import unpacked
from ..requests.reading import read_requests
from .chance import ChanceLevels
from .chance_demoter import ChanceDemoter
from .covariance import CovarianceLocalization
from .demoter import Demoter, Localization
from .kept_steps import KeptSteps
from .key_geometry import key_geometry
from .neurons import NeuronLocalization
from .outcomes import report
from .revs_hparams import REVSHyperParams
from .secrets_of_call import SecretsOfCall
from .siblings import make_siblings
from .targets import choose_targets, targets_above_chance


def execute_revs(
    model: nn.Module,
    tok: Any,
    requests: Sequence[Mapping[str, Any]],
    hparams: REVSHyperParams,
    *,
    progress: bool = False,
    unfinished: Path | None = None,
) -> EditSet:
    """Computes the edit that demotes every chosen token of every secret; all weights are as before when it returns.

    Args:
        model: A causal language model; its weights are edited while the function runs and put back to the bit, also
            when it fails or is interrupted.
        tok: Its tokenizer.
        requests: The host's request dictionaries; see `read_requests` for what is forgotten. With `localization:
            covariance` they may also name "sibling_prompts" and "retain_texts", lists of texts.
        hparams: The settings.
        progress: Show a progress bar.
        unfinished: A folder where a long call keeps what it solved so far, and goes on with when it is made again; for
            the caller to remove when the edit is saved. It tells the secrets as the edit does.

    Returns:
        The edit, with one `TargetOutcome` per edited token.

    Raises:
        InputError: When a request, a setting or the model cannot be used.
    """
    hparams.validate()
    with unpacked(model, [hparams.rewrite_module_tmp], hparams.layers) as packed:
        edits = _edits(model, tok, requests, hparams, progress=progress, unfinished=unfinished)
    return edits.of_call(requests, hparams.to_dict(), packed=packed)


def _edits(
    model: nn.Module,
    tok: Any,
    requests: Sequence[Mapping[str, Any]],
    hparams: REVSHyperParams,
    *,
    progress: bool,
    unfinished: Path | None,
) -> EditSet:
    decoder = Decoder.of(model, hparams)
    margins = hparams.ranks(decoder.lens.size)
    if hparams.n_neurons > decoder.ff_width:
        raise InputError(f"n_neurons is {hparams.n_neurons}, but FF2 has only {decoder.ff_width} neurons.")
    secrets = read_requests(requests, tok, context_length=decoder.context_length, **hparams.request_options)
    decoder.after_ff2  # noqa: B018 - what cannot be edited exactly is refused before anything is read
    generator = torch.Generator().manual_seed(hparams.seed)
    siblings = make_siblings(secrets, hparams.siblings if hparams.reads_siblings else 0, hparams.seed)
    call = SecretsOfCall(tok, secrets, siblings, hparams)
    with TrialEdits() as trial, ExitStack() as stack:
        with tqdm(desc="reading siblings", total=2, bar_format="{desc} {bar} {elapsed}", disable=not progress) as bar:
            localization: Localization
            if hparams.localization == "covariance":
                localization = CovarianceLocalization(decoder, key_geometry(decoder, call), hparams, trial)
            else:
                localization = NeuronLocalization(decoder, margins, hparams, generator, trial)
            kept = None
            if unfinished is not None:
                localization = kept = KeptSteps(decoder, localization, trial, generator, unfinished, call)
            bar.update()
            bar.set_description("choosing tokens")
            demoter: Demoter | ChanceDemoter
            if hparams.aim == "chance":
                # Every round reads the same texts, and the first reading is that of the choice.
                stack.enter_context(lower_layers_kept(decoder))
                levels = ChanceLevels(call)
                targets = targets_above_chance(model, call, levels)
                demoter = ChanceDemoter(decoder, targets, levels, localization, trial, progress)
            else:
                targets = choose_targets(model, call, generator)
                demoter = Demoter(decoder, targets, margins.residual_bottom_rank, localization, progress)
            bar.update()
        outcomes = demoter.demote_all()
        edits = trial.collect(hparams.ALGORITHM, tuple(outcomes))
        if kept is not None:
            kept.keep_rest()
    report(outcomes)
    return edits


apply_revs_to_model = apply_function(execute_revs)
