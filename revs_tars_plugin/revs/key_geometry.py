"""What must not change, gathered for `localization: covariance`: ordinary text, siblings, and texts to retain."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from ..model.decoder import Decoder
from ..model.matrices import FeedForwardMatrix
from ..model.processes import from_process, is_own, process_count
from ..moments.files import MomentFiles
from ..moments.second_moments import ordinary_moments, temporary_moments
from ..requests.reading import Secret, join
from .covariance import KeyGeometry, layer_schedule
from .factors import Factors
from .revs_hparams import REVSHyperParams
from .secrets_of_call import SecretsOfCall
from .spared import SparedContexts

# How much an expert that ordinary text seldom reached is taken for used, as a share of what the others are.
_SELDOM = 0.5


def key_geometry(decoder: Decoder, call: SecretsOfCall) -> KeyGeometry:
    """Adds up the second moments of all that must not change, each as a mean over its positions times its weight.

    Args:
        decoder: The model.
        call: The secrets, with their siblings and the settings.

    Raises:
        InputError: When a text cannot be read.
    """
    hparams = call.hparams
    ordinary = ordinary_moments(decoder, call.tok, hparams)
    siblings = [
        join(call.asked(sibling.prompt), sibling.target)
        for secret in call.secrets
        for sibling in call.siblings[secret.index]
    ]
    extra = []
    for weight, texts in (
        (hparams.sibling_weight, list(dict.fromkeys(siblings))),
        (hparams.retain_weight, _retained(call.secrets, hparams)),
    ):
        if weight and texts:
            sequences = sorted((call.tok(text)["input_ids"] for text in texts), key=len)
            extra.append((weight, temporary_moments(decoder, sequences)))
    ridges = layer_schedule(decoder.layers, decoder.n_layers, hparams.ridge_first_layer, hparams.ridge_last_layer)
    damping = layer_schedule(decoder.layers, decoder.n_layers, hparams.damping_first_layer, hparams.damping_last_layer)
    factors = LayerFactors(decoder, ordinary, extra, ridges)
    factors.make_together()
    return KeyGeometry(factors, damping, _spared(decoder, call))


def _spared(decoder: Decoder, call: SecretsOfCall) -> SparedContexts | None:
    """Where texts to retain say a token that some secret of the call has as well."""
    texts = _retained(call.secrets, call.hparams)
    if not texts or call.hparams.schedule != "support_vectors":
        return None
    wanted = {token for secret in call.secrets for token in secret.target_ids}
    return SparedContexts.of(decoder, [call.tok(text)["input_ids"] for text in texts], wanted)


class LayerFactors(Mapping[int, Factors]):
    """The Cholesky factor of each layer, made when it is first asked for and kept on disk: one of them is in memory.

    A mixture has one for each expert. What two experts are given for the same tokens has moments, too, which are left
    out: with them a layer's matrix would be as wide as all experts together. The step stays exact, the change is not
    quite the least that does it.
    """

    def __init__(
        self,
        decoder: Decoder,
        ordinary: MomentFiles,
        extra: Sequence[tuple[float, MomentFiles]],
        ridges: Mapping[int, float],
    ) -> None:
        """Remembers what is added up, each with its weight, and the ridge as a share of the ordinary text's mean."""
        self._decoder, self._ordinary, self._extra, self._ridges = decoder, ordinary, extra, ridges
        self._folder = tempfile.TemporaryDirectory(prefix="revs-tars-")
        self._typical_of: dict[int, float] = {}

    def make_together(self) -> None:
        """Lets each of the processes that work together make some of the factors, and give them to the others."""
        if process_count() == 1:
            return
        matrices = [(layer, matrix) for layer in self._ridges for matrix in self._decoder.ff2[layer].matrices]
        for number, (layer, matrix) in enumerate(matrices):
            if is_own(number):
                self._of_matrix(layer, matrix)
        for number, (layer, matrix) in enumerate(matrices):
            known = self._of_matrix(layer, matrix) if is_own(number) else torch.empty(matrix.width, matrix.width)
            factor = known.to(matrix.weight.device).contiguous()
            from_process(number % process_count(), factor)
            # In all of them alike, so that they solve alike to the last bit.
            np.save(self._path(matrix), factor.cpu().numpy())

    def __getitem__(self, layer: int) -> Factors:
        """Returns one layer's lower factors, float32, where the layer's weight is."""
        matrices = self._decoder.ff2[layer].matrices
        return _Blocks(len(matrices), lambda block: self._of_matrix(layer, matrices[block]))

    def _of_matrix(self, layer: int, matrix: FeedForwardMatrix) -> Float[Tensor, "f f"]:
        """Returns the lower factor of one matrix of a layer."""
        device, name = matrix.weight.device, matrix.weight_name
        path = self._path(matrix)
        if path.is_file():
            return torch.from_numpy(np.load(path)).to(device)
        # In place throughout: for a wide model each copy of it would be half a gigabyte.
        moment = torch.zeros(matrix.width, matrix.width, device=device)
        self._ordinary.add_mean(name, moment)
        if len(self._decoder.ff2[layer].matrices) == 1:
            typical = float(moment.diagonal().mean())
        else:
            typical = self._typical(layer)
            self._shrink(moment, typical)
        for weight, files in self._extra:
            files.add_mean(name, moment, weight)
        # A direction that no text ever uses would make the matrix singular.
        moment.diagonal().add_(max(self._ridges[layer] * typical, 1e-10))
        factor = _cholesky_in_place(moment)
        if factor is None:
            raise InputError(
                f"The second moments of layer {layer} have no factor in float32; raise ridge_first_layer and "
                "ridge_last_layer."
            )
        np.save(path, factor.cpu().numpy())
        return factor

    def _path(self, matrix: FeedForwardMatrix) -> Path:
        return Path(self._folder.name) / f"{matrix.weight_name}.npy"

    @staticmethod
    def _shrink(moment: Float[Tensor, "f f"], typical: float) -> None:
        """Fills up what ordinary text does not say of an expert: little of it, or none, may have gone there.

        Where that is silent a key would be free, and all of an edit would go into what nobody knows. So an expert is
        taken for used at least half as much as the layer's others are, in all directions alike, and as much as they
        are where it was not reached at all.
        """
        own = float(moment.diagonal().mean())
        moment.diagonal().add_(typical if own == 0 else _SELDOM * max(typical - own, 0.0))

    def _typical(self, layer: int) -> float:
        """The mean square of a mixture's activations on ordinary text, of the experts that it reached."""
        if layer not in self._typical_of:
            means = [
                float(self._ordinary.mean_squares(matrix.weight_name, matrix.width).mean())
                for matrix in self._decoder.ff2[layer].matrices
            ]
            reached = [mean for mean in means if mean > 0] or [0.0]
            self._typical_of[layer] = sum(reached) / len(reached)
        return self._typical_of[layer]

    def __iter__(self) -> Iterator[int]:
        """Iterates over the layers."""
        return iter(self._ridges)

    def __len__(self) -> int:
        """Returns the number of layers."""
        return len(self._ridges)


class _Blocks(Sequence[Tensor]):
    """The factors of a layer's matrices, read when they are asked for; the last one stays."""

    def __init__(self, count: int, read: Callable[[int], Tensor]) -> None:
        self._count, self._read = count, read
        self._last: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, block: int) -> Tensor:  # type: ignore[override]
        if not 0 <= block < self._count:
            raise IndexError(block)
        if self._last is None or self._last[0] != block:
            self._last = None
            self._last = (block, self._read(block))
        return self._last[1]


def _cholesky_in_place(matrix: Float[Tensor, "f f"]) -> Float[Tensor, "f f"] | None:
    """Returns the lower factor of a symmetric matrix in that one's own memory; None where there is none."""
    columns = matrix.mT  # the same matrix in the order that LAPACK writes
    failed = torch.zeros((), dtype=torch.int32, device=matrix.device)
    torch.linalg.cholesky_ex(columns, out=(columns, failed))
    return None if bool(failed) else columns


def _retained(secrets: Sequence[Secret], hparams: REVSHyperParams) -> list[str]:
    texts = [text for secret in secrets for text in secret.retain]
    if hparams.retain_texts:
        try:
            lines = Path(hparams.retain_texts).expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f'retain_texts names "{hparams.retain_texts}", which cannot be read: {error}.') from error
        texts += [line.strip() for line in lines if line.strip()]
    return list(dict.fromkeys(texts))
