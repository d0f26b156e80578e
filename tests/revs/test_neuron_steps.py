"""How far neurons go: exactly as far as the rank needs, in the order in which they were chosen."""

import pytest
import torch
from helpers import last_layer, tiny_settings

from revs_tars_plugin.model.after_ff2 import AfterFF2
from revs_tars_plugin.revs.neuron_selection import select_neurons
from revs_tars_plugin.revs.neuron_steps import (
    ActiveNeurons,
    _share_at_bottom,
    _share_beyond,
    exact_steps,
    iterative_steps,
    needed_step,
    steps_of_neurons,
)


def test_one_layer_moves_exactly_as_far_as_its_rank_needs(model, tok, requests_):
    hparams = tiny_settings(mlp_bottom_rank=0)
    decoder, demotion, state = last_layer(model, tok, requests_, hparams)
    margins = hparams.ranks(decoder.lens.size)
    residual, activation = state.residual[0, -1], state.ff2_input[0, -1]
    needed = needed_step(decoder.lens, demotion, residual, state.ff2_output[0, -1], margins=margins, after=AfterFF2())
    neurons = select_neurons(decoder.ff2[2], activation, decoder.lens, demotion, hparams, after=AfterFF2())
    vectors = decoder.ff2[2].neurons(neurons)
    chosen = steps_of_neurons(
        decoder.lens,
        demotion,
        ActiveNeurons(neurons, vectors, activation[neurons]),
        margins,
        needed=needed,
        solver=exact_steps,
    )
    assert chosen.demotion == pytest.approx(needed)
    # Each neuron's step has the sign of its activation, so that all of them demote.
    assert (activation[chosen.indices] * chosen.steps > 0).all()
    moved = float((activation[chosen.indices].double() * chosen.steps.double()).sum())
    for share, reached in ((1.001, True), (0.999, False)):
        vector = residual - share * moved * demotion.directions[0]
        rank = int(decoder.lens.ranks(vector[None], demotion.tokens))
        assert (rank >= margins.residual_bottom_rank) is reached


def test_the_published_search_ends_in_the_same_margin_as_the_exact_step(model, tok, requests_, hparams):
    decoder, demotion, _ = last_layer(model, tok, requests_, hparams)
    vectors = torch.randn(40, 32, generator=torch.Generator().manual_seed(3))
    bottom, top = 100, 160
    above = decoder.lens.ranks(vectors, demotion.tokens.expand(40)) < bottom
    vectors, many = vectors[above], demotion.at([0] * int(above.sum()))
    assert len(vectors) > 10
    exact = exact_steps(decoder.lens, vectors, many, bottom, top)
    searched = iterative_steps(decoder.lens, vectors, many, bottom, top)
    for steps in (exact, searched):
        # In float32 the exact step lies on the edge of the rank; the lines themselves, in float64, decide.
        moved = decoder.lens.logits(vectors).double() - steps[:, None] * many.responses.double()
        ranks = (moved > moved.gather(1, many.tokens[:, None])).sum(-1)
        assert ((ranks >= bottom) & (ranks <= top)).all()
    assert (searched >= exact * (1 - 1e-6)).all()


def test_neurons_share_what_is_needed_in_order():
    bottom, top = torch.tensor([1.0, 2.0, torch.inf, 3.0]).double(), torch.tensor([2.0, 4.0, torch.inf, 3.0]).double()
    strength = torch.tensor([1.0, 0.5, 1.0, 2.0]).double()
    assert _share_at_bottom(0.5, bottom, strength).tolist() == [0.5, 0, 0, 0]
    assert _share_at_bottom(1.5, bottom, strength).tolist() == [1, 1, 0, 0]
    assert _share_at_bottom(8.0, bottom, strength).tolist() == [1, 2, 0, 3]
    assert _share_at_bottom(9.0, bottom, strength) is None
    assert _share_beyond(9.0, bottom, top, strength).tolist() == [1.5, 3, 0, 3]
    assert _share_beyond(99.0, bottom, top, strength).tolist() == [2, 4, 0, 3]
