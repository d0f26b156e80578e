"""Neurons that are rewritten into detectors: their first vectors look for something, their second one answers to it."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..edits.trial import TrialEdits
from ..errors import InputError
from ..model.decoder import Decoder
from ..model.matrices import FeedForwardMatrix
from .affinity import Candidate
from .layer_reading import LayerReading, read_layers
from .ordinary_states import OrdinaryStates
from .reversal import Matrices, Reversals

# How steeply a detector rises behind its threshold: at the other side of it an activation is nearly 0.
_STEEPNESS = 8.0
# An earlier call's detector is not one that can be spared: its first vectors are parallel, as no other neuron's are.
_PARALLEL = 0.999


@dataclass(frozen=True)
class DetectorNeurons:
    """The neurons of some layers of which detectors are made.

    Attributes:
        decoder: The model.
        matrices: The matrices of these layers by layer and name: `down`, `up`, and `gate` where the model has one.
        trial: The trial that edits are written into.
        ordinary: What each of the layers reads where nothing is to be found.
    """

    decoder: Decoder
    matrices: Matrices
    trial: TrialEdits
    ordinary: dict[int, OrdinaryStates]

    def read(self, layer: int, sequences: Sequence[Sequence[int]]) -> LayerReading:
        """Returns what a layer reads at the last tokens of sequences; see `read_layers`."""
        return read_layers(self.decoder, {layer: first_matrix(self.matrices, layer)}, sequences)[layer]

    def claim(self, layer: int, row: Float[Tensor, " d"], taken: Set[int], done: Reversals) -> int:
        """Makes a detector of the neuron that ordinary text needs least; it answers nothing yet.

        Args:
            layer: Its layer.
            row: What its first vectors look for: the product is 1 and more there, -1 and less elsewhere.
            taken: Neurons that are left alone.
            done: Gets what was changed.

        Returns:
            The neuron.

        Raises:
            InputError: When none is left.
        """
        ordinary, after = self.ordinary[layer], self.decoder.after_ff2[layer]
        writes = ordinary.loudness * after.unscaled(self.matrices[layer, "down"].rows).norm(dim=1).cpu()
        writes[self.detectors(layer)] = torch.inf
        writes[list(taken)] = torch.inf
        if not bool(writes.isfinite().any()):
            raise InputError(
                f"Layer {layer} has no neuron left for another name; remove the rest in a call with another "
                "name_layer and spelling_layer."
            )
        neuron = int(writes.argmin())
        firsts = [name for name in ("gate", "up") if (layer, name) in self.matrices]
        for name in firsts:
            # The factor of the gate makes it steep; that of what it lets through only makes it large.
            self._put(layer, name, neuron, row * (_STEEPNESS if name == firsts[0] else 1.0), done)
        self.answer(layer, neuron, torch.zeros_like(row), done)
        return neuron

    def answer(self, layer: int, neuron: int, column: Float[Tensor, " d"], done: Reversals) -> None:
        """Sets what a detector writes."""
        self._put(layer, "down", neuron, column, done)

    def give_back(self, layer: int, neuron: int, done: Reversals) -> None:
        """Makes a neuron what it was before it was claimed."""
        for place in reversed(range(len(done.chosen))):
            candidate = done.chosen[place]
            if (candidate.layer, candidate.neuron) == (layer, neuron):
                weights = self.matrices[layer, candidate.matrix]
                index = torch.tensor([neuron], device=weights.matrices[0].weight.device)
                self.trial.write_neurons(weights, index, done.before[place][None])
                for values in (done.chosen, done.before, done.after):
                    del values[place]

    def activations(self, layer: int, products: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Returns about what a detector passes on where its row's product is so much: nothing below 0."""
        return _STEEPNESS * products.clamp_min(0) ** (2 if (layer, "gate") in self.matrices else 1)

    def detectors(self, layer: int) -> Bool[Tensor, " f"]:
        """Which neurons an earlier call wrote."""
        if (layer, "gate") not in self.matrices:
            return self.ordinary[layer].silent
        gate, up = (self.matrices[layer, name].rows.float() for name in ("gate", "up"))
        return torch.nn.functional.cosine_similarity(gate, up).cpu() > _PARALLEL

    def _put(self, layer: int, matrix: str, neuron: int, values: Tensor, done: Reversals) -> None:
        weights = self.matrices[layer, matrix]
        index = torch.tensor([neuron], device=weights.matrices[0].weight.device)
        old = weights.neurons(index)[0]
        new = values.to(old)
        self.trial.write_neurons(weights, index, new[None])
        places = [(each.layer, each.matrix, each.neuron) for each in done.chosen]
        if (layer, matrix, neuron) in places:
            done.after[places.index((layer, matrix, neuron))] = new
            return
        done.chosen.append(Candidate(layer, matrix, neuron, float("inf"), 1))
        done.before.append(old)
        done.after.append(new)


def first_matrix(matrices: Matrices, layer: int) -> FeedForwardMatrix:
    """Returns the matrix of a layer whose inputs are read."""
    first = matrices[layer, "up"]
    assert isinstance(first, FeedForwardMatrix)
    return first
