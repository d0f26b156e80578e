"""Angular reversal: of the same length, the other way, until the goal is reached, and back."""

import pytest
import torch
from helpers import assert_same_bits, snapshot
from torch.nn.functional import cosine_similarity
from transformers.pytorch_utils import Conv1D

from revs_tars_plugin.edits.places import WeightPlace
from revs_tars_plugin.edits.trial import TrialEdits
from revs_tars_plugin.model.matrices import FeedForwardMatrix
from revs_tars_plugin.tars.affinity import Candidate
from revs_tars_plugin.tars.reversal import Reverser, reversed_vector


@pytest.mark.parametrize("sign", [1, -1])
def test_the_reversed_vector_keeps_its_length_and_points_the_other_way(sign):
    old, targeting = torch.randn(8), torch.randn(8)
    new = reversed_vector(old, targeting, sign, 1.5)
    assert float(new.norm()) == pytest.approx(1.5 * float(old.norm()), rel=1e-5)
    # What the neuron adds is its sign times the vector.
    assert float(cosine_similarity(sign * new, targeting, dim=0)) == pytest.approx(-1, abs=1e-5)


def test_the_model_is_asked_less_often_than_vectors_are_reversed_and_hardly_any_in_vain():
    module = torch.nn.Linear(64, 4, bias=False)
    matrices = {(0, "down"): FeedForwardMatrix(module, "weight", neuron_dim=1)}
    candidates = [Candidate(0, "down", index, 1.0, 1) for index in range(60)]
    asked = []
    with TrialEdits() as trial:
        reverser = Reverser(
            matrices=matrices, targeting=dict.fromkeys(matrices, torch.ones(4)), scale=0.5, added=True, trial=trial
        )
        before = module.weight.detach().clone()

        def probability():
            """A fifth less with each vector: below a hundredth after 21."""
            asked.append(int((module.weight.detach() != before).any(dim=0).sum()))
            return 0.8 ** asked[-1]

        done, last = reverser.reverse_until(candidates, probability, before=1.0, goal=0.01)
    assert last < 0.01
    assert 21 <= len(done.chosen) <= 23
    assert len(asked) <= len(done.chosen) / 1.5
    assert asked == sorted(set(asked))
    assert asked[:2] == [1, 2]


def test_an_added_reversal_keeps_what_the_vector_does_for_others():
    torch.manual_seed(0)
    old, targeting = torch.randn(6), torch.randn(6)
    replaced = reversed_vector(old, targeting, -1, 0.5)
    added = reversed_vector(old, targeting, -1, 0.5, added=True)
    torch.testing.assert_close(added - old, replaced)
    # Whatever is at right angles to the targeting vector gets as much from it as before; replaced, it gets nothing.
    other = torch.randn(6)
    other -= (other @ targeting) / (targeting @ targeting) * targeting
    assert float(added @ other) == pytest.approx(float(old @ other), abs=1e-5)
    assert float(replaced @ other) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_reversal_stops_at_the_goal_and_can_be_taken_back(kind):
    torch.manual_seed(0)
    module = torch.nn.Linear(10, 4, bias=False) if kind == "linear" else Conv1D(4, 10)
    before = snapshot(module)
    dim = 1 if kind == "linear" else 0
    matrices = {(0, "down"): FeedForwardMatrix(module, "weight", neuron_dim=dim)}
    candidates = [Candidate(0, "down", index, 1.0, 1) for index in (7, 2, 5, 1)]
    probabilities = iter([0.5, 0.3, 0.05])
    targeting = torch.tensor([1.0, 2.0, 0.0, 0.0])
    with TrialEdits() as trial:
        reverser = Reverser(
            matrices=matrices, targeting=dict.fromkeys(matrices, targeting), scale=1.0, added=False, trial=trial
        )
        done, last = reverser.reverse_until(candidates, lambda: next(probabilities), before=0.9, goal=0.1)
        assert last == 0.05
        assert [candidate.neuron for candidate in done.chosen] == [7, 2, 5]
        changed = (module.weight.detach() != before["weight"]).any(dim=1 - dim).nonzero().flatten()
        assert changed.tolist() == [2, 5, 7]
        (edit,) = done.edits(matrices)
        assert edit.indices.tolist() == [2, 5, 7]
        assert edit.stands_in(WeightPlace(module, "weight"), applied=True)
        reverser.take_back(done)
        assert_same_bits(module, before)
