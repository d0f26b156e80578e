"""What must not change, gathered for `localization: covariance`: ordinary text, siblings, and texts to retain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..decoder import Decoder
from ..errors import InputError
from ..requests import Secret
from ..statistics import collect, ordinary_moments
from .covariance import KeyGeometry, layer_schedule
from .revs_hparams import REVSHyperParams
from .siblings import Sibling


def key_geometry(
    decoder: Decoder,
    tok: Any,
    secrets: Sequence[Secret],
    siblings: Mapping[int, Sequence[Sibling]],
    hparams: REVSHyperParams,
) -> KeyGeometry:
    """Adds up the second moments of all that must not change, each as a mean over its positions times its weight.

    Raises:
        InputError: When a text cannot be read.
    """
    ordinary = ordinary_moments(decoder, tok, hparams)
    texts = list(dict.fromkeys(sibling.text for secret in secrets for sibling in siblings[secret.index]))
    extra = [(hparams.sibling_weight, texts), (hparams.retain_weight, _retained(secrets, hparams))]
    moments = {layer: moment.mean.to(decoder.ff2[layer].weight.device) for layer, moment in ordinary.items()}
    ridge = layer_schedule(decoder.layers, decoder.n_layers, hparams.ridge_first_layer, hparams.ridge_last_layer)
    ridges = {layer: ridge[layer] * moment.diagonal().mean() for layer, moment in moments.items()}
    for weight, chosen in extra:
        if weight and chosen:
            sequences = sorted((tok(text)["input_ids"] for text in chosen), key=len)
            found = collect(decoder, sequences)
            moments = {
                layer: moment + weight * found[layer].mean.to(moment.device) for layer, moment in moments.items()
            }
    # A direction that no text ever uses would make the matrix singular.
    factors = {
        layer: torch.linalg.cholesky(
            moment + torch.eye(len(moment), device=moment.device) * ridges[layer].clamp_min(1e-10)
        )
        for layer, moment in moments.items()
    }
    damping = layer_schedule(decoder.layers, decoder.n_layers, hparams.damping_first_layer, hparams.damping_last_layer)
    return KeyGeometry(factors, damping)


def _retained(secrets: Sequence[Secret], hparams: REVSHyperParams) -> list[str]:
    given = [text for secret in secrets for text in secret.retain]
    if hparams.retain_texts:
        try:
            lines = Path(hparams.retain_texts).expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f'retain_texts names "{hparams.retain_texts}", which cannot be read: {error}.') from error
        given += [line.strip() for line in lines if line.strip()]
    return list(dict.fromkeys(given))
