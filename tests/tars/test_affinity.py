"""Affinities are what they say, and the vectors with the highest ones are chosen."""

import pytest
import torch

from revs_tars_plugin.model.matrices import FeedForwardMatrix
from revs_tars_plugin.tars.affinity import Neurons, affinities, best_candidates


def neurons(matrix="down", layer=0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    module = torch.nn.Linear(20, 6, bias=False) if matrix == "down" else torch.nn.Linear(6, 20, bias=False)
    with torch.no_grad():
        module.weight.normal_(generator=generator)
    weights = FeedForwardMatrix(module, "w.weight", neuron_dim=1 if matrix == "down" else 0)
    activations = torch.randn(20, generator=generator)
    return Neurons(layer, matrix, weights, activations, torch.rand(20, generator=generator) + 0.1)


@pytest.mark.parametrize("matrix", ["down", "gate"])
def test_affinities_are_what_they_say(matrix):
    own, targeting = neurons(matrix), torch.tensor([1.0, -2.0, 0.5, 0.0, 1.0, 3.0])
    vectors = own.weights.weight.detach().T if matrix == "down" else own.weights.weight.detach()
    for index in range(20):
        vector, a, activity = vectors[index], own.activations[index], own.activity[index]
        cosine = vector @ targeting / vector.norm() / targeting.norm()
        expected = {
            "cosine": abs(cosine),
            "contribution": cosine * vector.norm() * a,
            "contribution_per_activity": cosine * vector.norm() * a / activity,
            "specific": vector.norm() * abs(a) * (abs(a) / activity) ** 1.5,
        }
        for kind, value in expected.items():
            assert float(affinities(own, targeting, kind)[index]) == pytest.approx(float(value), rel=1e-4, abs=1e-6)


def test_the_chosen_vectors_have_the_highest_affinity_of_all():
    groups = [neurons("down", 0, 1), neurons("gate", 0, 2), neurons("down", 1, 3)]
    targeting = torch.randn(6, generator=torch.Generator().manual_seed(4))
    everything = sorted(
        (
            (float(value), group.layer, group.matrix, index)
            for group in groups
            for index, value in enumerate(affinities(group, targeting, "specific"))
        ),
        reverse=True,
    )
    chosen = best_candidates(groups, targeting, "specific", 7)
    assert [(c.affinity, c.layer, c.matrix, c.neuron) for c in chosen] == everything[:7]
    taken = {(chosen[0].layer, chosen[0].matrix): {chosen[0].neuron}}
    assert best_candidates(groups, targeting, "specific", 6, taken) == chosen[1:]


def test_what_writes_most_on_ordinary_text_is_spared():
    own, targeting = neurons(), torch.randn(6, generator=torch.Generator().manual_seed(4))
    writes = own.activity * own.weights.weight.detach().norm(dim=0)
    most = set(writes.topk(5).indices.tolist())
    everything = [c.neuron for c in best_candidates([own], targeting, "contribution", 20)]
    left = [c.neuron for c in best_candidates([own], targeting, "contribution", 20, spared=0.25)]
    assert len(left) == 15
    assert left == [neuron for neuron in everything if neuron not in most]


def test_a_vector_that_works_the_other_way_round_has_a_negative_sign():
    own, targeting = neurons(), torch.ones(6)
    for candidate in best_candidates([own], targeting, "specific", 20):
        assert candidate.sign == (-1 if own.activations[candidate.neuron] < 0 else 1)
    rows = neurons("gate")
    for candidate in best_candidates([rows], targeting, "cosine", 20):
        assert candidate.sign == (-1 if float(rows.weights.weight.detach()[candidate.neuron] @ targeting) < 0 else 1)
