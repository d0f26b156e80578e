"""`localization: neurons`: one target after another, all layers of it within one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..edits.trial import TrialEdits
from ..model.after_ff2 import AfterFF2
from ..model.decoder import Decoder, LayerState
from ..model.logit_lens import Demotions
from .neuron_selection import activation_gradients, select_neurons
from .neuron_steps import ActiveNeurons, Solver, exact_steps, iterative_steps, needed_step, steps_of_neurons
from .outcomes import EditedParts
from .revs_hparams import RankMargins, REVSHyperParams
from .targets import Goal

_SOLVERS: dict[str, Solver] = {"exact": exact_steps, "iterative": iterative_steps}


@dataclass(frozen=True)
class NeuronLocalization:
    """Writes a demotion into single neurons of FF2, as published (REVS, algorithm 1).

    Attributes:
        decoder: The model.
        margins: The asked ranks.
        hparams: Which neurons, and how they are solved for.
        generator: For `neuron_score: random`.
        trial: Where the edits are written.
    """

    decoder: Decoder
    margins: RankMargins
    hparams: REVSHyperParams
    generator: torch.Generator
    trial: TrialEdits

    @property
    def together(self) -> int:
        """How many targets are solved together: each sees the edits of those before it."""
        return 1

    @property
    def passes(self) -> int:
        """How many passes one target takes."""
        return 1

    def demote(self, goals: Sequence[Goal], *, advance: Callable[[], object] = lambda: None) -> list[EditedParts]:
        """Edits the neurons of all layers, goal by goal, each in the goal's own context; see `Localization`."""
        after_ff2 = self.decoder.after_ff2  # found before any pass is under way
        by_layer = self._directions(sorted({goal.token for goal in goals}), after_ff2)
        return [self._demote(goal, after_ff2, by_layer, advance) for goal in goals]

    def _directions(self, tokens: Sequence[int], after_ff2: Mapping[int, AfterFF2]) -> dict[int, dict[int, Tensor]]:
        """By layer the direction of each token; without a ridge, or a gain behind FF2, the same in all layers."""
        ridge = self.hparams.direction_ridge
        solved: dict[int, dict[int, Tensor]] = {}
        found = {}
        for layer, after in after_ff2.items():
            place = layer if ridge and after.gain is not None else -1
            if place not in solved:
                directions = self.decoder.lens.directions.of(torch.tensor(tokens), ridge=ridge, gain=after.gain)
                solved[place] = dict(zip(tokens, torch.split(directions, 1), strict=True))
            found[layer] = solved[place]
        return found

    def _demote(
        self,
        goal: Goal,
        after_ff2: Mapping[int, AfterFF2],
        by_layer: Mapping[int, Mapping[int, Tensor]],
        advance: Callable[[], object],
    ) -> EditedParts:
        """Takes the layers from the first to the last, with the edits of earlier ones in place."""
        context, lens = goal.contexts[0], self.decoder.lens
        margins = replace(self.margins, residual_bottom_rank=goal.rank)
        demotion: Demotions | None = None
        gradients = {}
        if self.hparams.neuron_score == "gradient":
            gradients = activation_gradients(self.decoder, context, goal.token)
        edited: list[int] = []

        def visit(layer: int, state: LayerState) -> Tensor | None:
            advance()
            after, direction = after_ff2[layer], by_layer[layer][goal.token]
            nonlocal demotion
            if demotion is None or demotion.directions is not direction:
                demotion = lens.along(torch.tensor([goal.token]), direction)
            needed = needed_step(
                lens, demotion, state.residual[0, -1], state.ff2_output[0, -1], margins=margins, after=after
            )
            if needed == 0.0:
                return None
            ff2, activation = self.decoder.ff2[layer], state.ff2_input[0, -1]
            indices = select_neurons(
                ff2,
                activation,
                lens,
                demotion,
                self.hparams,
                after=after,
                gradient=gradients.get(layer),
                generator=self.generator,
            )
            chosen = steps_of_neurons(
                lens,
                demotion,
                ActiveNeurons(indices, after.unscaled(ff2.neurons(indices)), activation[indices]),
                margins,
                needed=needed,
                solver=_SOLVERS[self.hparams.solver],
            )
            if chosen is None:
                return None
            old = ff2.neurons(chosen.indices)
            direction = after.before(demotion.directions.to(old.device))
            new = (old.float() - chosen.steps[:, None] * direction).to(old.dtype)
            self.trial.write_neurons(ff2, chosen.indices, new)
            edited.append(len(chosen.indices))
            # What the cast neurons add to the layer's output, at every position.
            change = state.ff2_input[..., chosen.indices].float() @ (new.float() - old.float())
            return after.change(state.ff2_output, change)

        self.decoder.forward_through_layers([context], visit)
        return EditedParts(layers=len(edited), neurons=sum(edited))
