"""From a name to facts: neurons that find the name where it stands, and turn its state into that of any name.

What follows a name is read from its last token's state. Early layers make that state from the tokens, so there a row of
weights can tell the name from all else (`separating_row`). A neuron that gives little to ordinary text is rewritten:
its first vectors read the name, and its second one writes what made-up names have in common less what the name has, the
reverse of what sets it apart. Published is a reversal of vectors that carry the concept; that vectors which read the
residual space are rewritten, too, is this project's (see docs/tars.md).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..edits.trial import TrialEdits
from ..errors import InputError
from ..model.decoder import Decoder
from .concepts import Concept
from .detector_neurons import DetectorNeurons, first_matrix
from .matrices import detector_matrices, matrices_of
from .ordinary_states import ordinary_states
from .reversal import Reversals
from .separation import separating_row
from .spellings import Spelling, spellings_of
from .tars_hparams import TARSHyperParams

LOG = logging.getLogger(__name__)

# Contexts in which a name's last token stands behind other tokens, for each of the name's own.
_OTHER_BEGINNINGS = 20
# Below this product a name is not found where it stands.
_FOUND = 0.5
# How much more it counts that nothing is written elsewhere.
_ELSEWHERE = 100.0
# Where a norm stands behind FF2, what a detector writes is tried in these sizes.
_SIZES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


@dataclass(frozen=True)
class NameDetectors:
    """Writes the detectors of names.

    Attributes:
        neurons: The neurons that may be rewritten.
        tok: The model's tokenizer.
        hparams: The settings.
    """

    neurons: DetectorNeurons
    tok: Any
    hparams: TARSHyperParams

    @classmethod
    def of(cls, decoder: Decoder, tok: Any, hparams: TARSHyperParams, trial: TrialEdits) -> NameDetectors | None:
        """Reads what detectors need to know of ordinary text; None where the settings ask for no detector.

        Args:
            decoder: The model.
            tok: Its tokenizer.
            hparams: The settings.
            trial: Where edits are written; nothing is yet.

        Raises:
            InputError: When a layer or a matrix that the settings name cannot be used.
        """
        names = detector_matrices(hparams)
        if not names:
            return None
        layers = {key: getattr(hparams, key) for key in ("name_layer", "spelling_layer")}
        for key, layer in layers.items():
            if layer not in decoder.ff2:
                raise InputError(
                    f"{key} is {layer}, which is not among the layers that are edited ({decoder.layers[0]} to "
                    f"{decoder.layers[-1]}); name one of these, or leave from_name out of directions."
                )
        matrices = matrices_of(decoder, hparams, ["down", *names], set(layers.values()))
        firsts = {layer: first_matrix(matrices, layer) for layer in sorted(set(layers.values()))}
        ordinary = ordinary_states(decoder, tok, hparams, firsts)
        return cls(DetectorNeurons(decoder, matrices, trial, ordinary), tok, hparams)

    def write(self, concept: Concept, taken: Mapping[tuple[int, str], set[int]], done: Reversals) -> tuple[int, int]:
        """Writes a detector for each spelling of a concept's name that a layer can tell; others are logged.

        Args:
            concept: The concept.
            taken: Vectors that belong to other concepts, by layer and matrix; they are left alone.
            done: Gets what was changed.

        Returns:
            How many spellings are found from now on, and how many are not.
        """
        spellings = spellings_of(concept, self.tok, variants=self.hparams.name_variants)
        if not spellings:
            LOG.warning('TARS: the tokenizer does not give "%s" back as it is; facts behind it stay.', concept.name)
            return 0, 1
        written = 0
        for spelling in spellings:
            several = len(spelling.tokens) > 1
            layer = self.hparams.spelling_layer if several else self.hparams.name_layer
            others = set().union(*(neurons for (other, _), neurons in taken.items() if other == layer))
            own = {candidate.neuron for candidate in done.chosen if candidate.layer == layer}
            if self._write_one(layer, spelling, others | own, done):
                written += 1
            else:
                LOG.warning(
                    'TARS: layer %d does not tell "%s" from other words, so facts behind it stay. Raise %s%s.',
                    layer,
                    self.tok.decode(list(spelling.tokens)),
                    "spelling_layer" if several else "name_layer",
                    "" if self.hparams.gate_module_tmp else ", or name gate_module_tmp if its layers have gates",
                )
        return written, len(spellings) - written

    def found_already(self) -> dict[tuple[int, str], set[int]]:
        """Returns the neurons that find names of earlier calls, by layer and matrix."""
        found: dict[tuple[int, str], set[int]] = {}
        for layer, matrix in self.neurons.matrices:
            found[layer, matrix] = set(self.neurons.detectors(layer).nonzero().flatten().tolist())
        return found

    def _write_one(self, layer: int, spelling: Spelling, taken: set[int], done: Reversals) -> bool:
        read = self.neurons.read
        here = read(layer, spelling.named)
        made_up = read(layer, [each for others in spelling.made_up for each in others])
        generic = made_up.output.reshape(len(spelling.named), -1, made_up.output.shape[1]).mean(dim=1)
        left_alone = [self.neurons.ordinary[layer].without(spelling.tokens), made_up.read]
        if len(spelling.tokens) > 1:
            left_alone.append(read(layer, self._other_beginnings(spelling)).read)
        elsewhere = torch.cat(left_alone)
        row = separating_row(here.read, elsewhere)
        if float((here.read @ row).median()) < _FOUND:
            return False
        neuron = self.neurons.claim(layer, row, taken, done)
        silent = read(layer, spelling.named)
        active, wanted = silent.passed_on[:, neuron], generic - silent.output
        # The least squares of what is wanted at the name and of nothing elsewhere.
        stray = self.neurons.activations(layer, elsewhere @ row).square().mean()
        along = (active[:, None] * wanted).mean(dim=0) / (active.square().mean() + _ELSEWHERE * stray)
        after = self.neurons.decoder.after_ff2[layer]
        column = after.before(along)
        if after.epsilon is not None:
            column = self._best_size(layer, spelling, neuron, column, generic)
        # A gate that the settings do not name does not open.
        if float(active.median()) < float(self.neurons.activations(layer, torch.tensor([_FOUND]))) or not column.any():
            self.neurons.give_back(layer, neuron, done)
            return False
        self.neurons.answer(layer, neuron, column, done)
        return True

    def _best_size(self, layer: int, spelling: Spelling, neuron: int, column: Tensor, generic: Tensor) -> Tensor:
        """What is written behind a norm does not grow with its size, so sizes are tried."""
        trial = Reversals()
        missed = []
        for size in _SIZES:
            self.neurons.answer(layer, neuron, size * column, trial)
            missed.append(float((self.neurons.read(layer, spelling.named).output - generic).square().sum()))
        return column * _SIZES[missed.index(min(missed))]

    def _other_beginnings(self, spelling: Spelling) -> list[tuple[int, ...]]:
        """The name's last token behind tokens that are not the name's."""
        generator = random.Random(f"{self.hparams.seed} {spelling.tokens}")
        *front, last = spelling.tokens
        found = []
        for sequence in spelling.named:
            for _ in range(_OTHER_BEGINNINGS):
                other = [generator.randrange(self.neurons.decoder.vocabulary(self.tok)) for _ in front]
                if other != front:
                    found.append((*sequence[: -len(spelling.tokens)], *other, last))
        return found
