"""The feed-forward matrices that TARS works on, by the settings' names for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ..errors import InputError
from ..model.decoder import Decoder
from ..model.experts import FeedForward
from .reversal import Matrices
from .tars_hparams import TARSHyperParams

# The settings that name them.
MATRIX_KEYS = {"down": "rewrite_module_tmp", "gate": "gate_module_tmp", "up": "up_module_tmp"}


def matrices_of(
    decoder: Decoder, hparams: TARSHyperParams, names: Sequence[str], layers: Collection[int] | None = None
) -> Matrices:
    """Returns feed-forward matrices of every edited layer, by layer and name.

    Args:
        decoder: The model.
        hparams: The settings, which say what the matrices are called.
        names: Which: `down`, `gate`, `up`.
        layers: Of these edited layers alone; None means all.

    Raises:
        InputError: When there is no such matrix, or it is not one vector a neuron.
    """
    matrices: dict[tuple[int, str], FeedForward] = {}
    for matrix in dict.fromkeys(names):
        key = MATRIX_KEYS[matrix]
        by_layer: Mapping[int, FeedForward] = (
            {layer: ff2 for layer, ff2 in decoder.ff2.items() if layers is None or layer in layers}
            if matrix == "down"
            else decoder.first_matrices(key, getattr(hparams, key), layers)
        )
        for layer, weights in by_layer.items():
            if weights.width != decoder.ff2[layer].width:
                raise InputError(
                    f'{key} names "{weights.matrices[0].weight_name}" with {weights.width} vectors, but FF2 has '
                    f"{decoder.ff2[layer].width} neurons: it holds more than the {matrix} matrix; leave {matrix} out "
                    "of matrices, and from_name out of directions."
                )
        matrices.update({(layer, matrix): weights for layer, weights in by_layer.items()})
    return matrices


def detector_matrices(hparams: TARSHyperParams) -> tuple[str, ...]:
    """Returns which matrices beside FF2 detectors are written into: none where the settings ask for no detector."""
    if "from_name" not in hparams.directions:
        return ()
    return ("gate", "up") if hparams.gate_module_tmp else ("up",)
