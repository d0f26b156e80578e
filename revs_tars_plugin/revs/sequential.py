"""`localization: neurons`: one target after another, all layers of it within one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..decoder import Decoder, LayerState
from ..trial_edits import TrialEdits
from .gradients import activation_gradients
from .neuron_selection import select_neurons
from .neuron_steps import Solver, exact_steps, iterative_steps, needed_step, steps_of_neurons
from .revs_hparams import RankMargins, REVSHyperParams

_SOLVERS: dict[str, Solver] = {"exact": exact_steps, "iterative": iterative_steps}


def demote(
    decoder: Decoder,
    context: Sequence[int],
    token: int,
    margins: RankMargins,
    hparams: REVSHyperParams,
    generator: torch.Generator,
    trial: TrialEdits,
    advance: Callable[[], object] = lambda: None,
) -> tuple[int, int]:
    """Edits the neurons of all layers for one token; returns how many layers and neurons were edited.

    Layers are taken from the first to the last, with the edits of earlier ones in place (REVS, algorithm 1); `advance`
    is called at each.
    """
    vocabulary = decoder.vocabulary
    demotion = vocabulary.demotions(torch.tensor([token]))
    gradients = activation_gradients(decoder, context, token) if hparams.neuron_score == "gradient" else {}
    edited: list[int] = []

    def visit(layer: int, state: LayerState) -> Tensor | None:
        advance()
        needed = needed_step(vocabulary, demotion, state.residual[0, -1], state.ff2_output[0, -1], margins)
        if needed == 0.0:
            return None
        ff2, activation = decoder.ff2[layer], state.ff2_input[0, -1]
        neurons = select_neurons(
            ff2, activation, vocabulary, demotion, hparams, gradient=gradients.get(layer), generator=generator
        )
        old = ff2.neurons(neurons)
        chosen = steps_of_neurons(
            vocabulary,
            demotion,
            neurons,
            old,
            activation[neurons],
            margins,
            needed=needed,
            solver=_SOLVERS[hparams.solver],
        )
        if chosen is None:
            return None
        old = ff2.neurons(chosen.indices)
        new = (old.float() - chosen.steps[:, None] * demotion.directions.to(old.device)).to(old.dtype)
        trial.write_neurons(ff2.weight_name, ff2.weight, ff2.neuron_dim, chosen.indices, new, ff2.transposed)
        edited.append(len(chosen.indices))
        # What the cast neurons add to the layer's output, at every position.
        return state.ff2_input[..., chosen.indices].float() @ (new.float() - old.float())

    decoder.forward_through_layers([context], visit)
    return len(edited), sum(edited)
