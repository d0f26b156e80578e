"""REVS: unlearning by rank editing in the vocabulary space (Ashuach, Tutek, Belinkov; arXiv 2406.09325)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..decoder import Decoder
from ..edits import EditSet, applied
from ..errors import InputError
from ..requests import read_requests
from ..residual_probe import check_residual
from ..trial_edits import TrialEdits
from .demoter import Demoter
from .geometry import key_geometry
from .outcomes import report
from .revs_hparams import REVSHyperParams
from .siblings import make_siblings
from .targets import choose_targets


def apply_revs_to_model(
    model: nn.Module,
    tok: Any,
    requests: Sequence[Mapping[str, Any]],
    hparams: REVSHyperParams,
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
        cache_template: Taken for the host's sake; REVS caches nothing.
        keep_original_weight: Taken for the host's sake; `return_orig_weights` decides.
        **kwargs: Taken for the host's sake.

    Returns:
        The edited model, and the original weights by name (empty without `return_orig_weights`). The second has the
        `EditSet` in its attribute `edits`.

    Raises:
        InputError: As `execute_revs`; no weight has changed then.
    """
    return applied(
        model,
        lambda edited: execute_revs(edited, tok, requests, hparams),
        copy=copy,
        return_orig_weights=return_orig_weights,
    )


def execute_revs(
    model: nn.Module,
    tok: Any,
    requests: Sequence[Mapping[str, Any]],
    hparams: REVSHyperParams,
    *,
    progress: bool = False,
) -> EditSet:
    """Computes the edit that demotes every chosen token of every secret; all weights are as before when it returns.

    Args:
        model: A causal language model; its weights are edited while the function runs and put back to the bit, also
            when it fails or is interrupted.
        tok: Its tokenizer.
        requests: The host's request dictionaries. With `localization: covariance` they may also name
            "sibling_prompts" and "retain_texts", lists of texts.
        hparams: The settings.
        progress: Show a progress bar.

    Returns:
        The edit, with one `TargetOutcome` per edited token.

    Raises:
        InputError: When a request, a setting or the model cannot be used.
    """
    hparams.validate()
    decoder = Decoder(model, hparams)
    margins = hparams.ranks(decoder.vocabulary.size)
    if hparams.n_neurons > decoder.ff_width:
        raise InputError(f"n_neurons is {hparams.n_neurons}, but FF2 has only {decoder.ff_width} neurons.")
    secrets = read_requests(
        requests, tok, context_length=decoder.context_length, max_prompt_length=hparams.max_prompt_length
    )
    check_residual(decoder)
    generator = torch.Generator().manual_seed(hparams.seed)
    by_covariance = hparams.localization == "covariance"
    by_siblings = hparams.token_method in ("specific", "chained")
    siblings = make_siblings(secrets, hparams.siblings if by_covariance or by_siblings else 0, hparams.seed)
    with tqdm(desc="choosing tokens", total=2, bar_format="{desc} {bar} {elapsed}", disable=not progress) as bar:
        targets = choose_targets(model, tok, secrets, siblings, hparams, generator)
        bar.update()
        bar.set_description("reading siblings")
        geometry = key_geometry(decoder, tok, secrets, siblings, hparams) if by_covariance else None
        bar.update()
    with TrialEdits() as trial:
        outcomes = Demoter(decoder, targets, margins, hparams, geometry, generator, trial, progress).demote_all()
        edits = trial.collect("REVS", tuple(outcomes))
    report(outcomes)
    return edits.of_call(requests, hparams.to_dict())
