"""MEMIT-delete: MEMIT (Meng et al., arXiv 2210.07229) as a deleting editor, which the REVS paper compares with.

Only the search for the value is ours (`value_vector.py`); the keys, the spreading over layers and the writing are the
host's own MEMIT, which reads the values from files, as it does where it is given cached ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ...model.decoder import Decoder
from ...model.forward import gradients_for
from ...requests.chat import asked_prompt
from ...requests.reading import Secret, read_requests
from ..easyedit import Host, load_host
from ..host_moments import with_moments
from .memit_delete_hparams import MEMITDeleteHyperParams
from .value_vector import deleting_value


def apply_memit_delete_to_model(
    model: nn.Module,
    tok: Any,
    requests: Sequence[Mapping[str, Any]],
    hparams: MEMITDeleteHyperParams,
    *,
    copy: bool = False,
    return_orig_weights: bool = False,
    cache_template: str | None = None,
    keep_original_weight: bool = False,
    **kwargs: Any,
) -> tuple[nn.Module, Mapping[str, Any]]:
    """Edits a model so that it no longer gives the secrets of the requests; the host's contract.

    Args:
        model: A causal language model.
        tok: Its tokenizer, fast.
        requests: The host's request dictionaries, with "subject"; see `read_requests` for what is forgotten.
        hparams: The settings.
        copy: Edit a copy and leave `model` alone.
        return_orig_weights: Return what restores the weights.
        cache_template: Not used: the values are searched anew.
        keep_original_weight: As the host's MEMIT takes it.
        **kwargs: Taken for the host's sake.

    Returns:
        What the host's MEMIT returns: the edited model, and the original weights by name.

    Raises:
        InputError: When a request, a setting or the model cannot be used; no weight has changed then.
    """
    hparams.validate()
    host = load_host()
    if copy:
        model = deepcopy(model)
    decoder = Decoder.of(model, hparams)
    secrets = read_requests(requests, tok, context_length=decoder.context_length, **hparams.request_options)
    # The host's MEMIT takes prompts as texts.
    secrets = [replace(secret, prompt=asked_prompt(tok, secret.prompt, hparams.chat_template)) for secret in secrets]
    memit = host.module("models.memit.memit_main")
    with (
        _padded_on_the_right(tok),
        gradients_for(model, []),
        tempfile.TemporaryDirectory() as folder,
    ):
        ready = with_moments(host, model, tok, hparams)
        groups = memit.get_context_templates(model, tok)
        templates = [template for group in groups for template in group]
        template = str(Path(folder) / "{}_{}_{}.npz")
        for secret in secrets:
            value = deleting_value(decoder, tok, secret, templates, hparams)
            path = template.format(hparams.layers[-1], hparams.clamp_norm_factor, secret.index)
            np.savez(path, v_star=value.float().cpu().numpy())
        edited, original = memit.apply_memit_to_model(
            model,
            tok,
            [_request(secret) for secret in secrets],
            ready,
            return_orig_weights=return_orig_weights,
            cache_template=template,
            **_keeping(host, keep_original_weight),
        )
    return edited, original


def _request(secret: Secret) -> dict[str, Any]:
    assert secret.subject is not None
    return {
        "case_id": secret.index,
        "prompt": secret.prompt,
        "subject": secret.subject,
        "target_new": secret.target,
        "ground_truth": secret.target,
    }


def _keeping(host: Host, keep_original_weight: bool) -> dict[str, bool]:
    return {"keep_original_weight": keep_original_weight} if host.generation == "release" else {}


@contextmanager
def _padded_on_the_right(tok: Any) -> Iterator[None]:
    """MEMIT counts positions from the left; the host pads there for every method that it does not know by name."""
    side = tok.padding_side
    tok.padding_side = "right"
    try:
        yield
    finally:
        tok.padding_side = side
