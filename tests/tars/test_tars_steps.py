"""The four steps of TARS, each by itself."""

import pytest
import torch
from helpers import assert_same_bits, snapshot, tiny_tars
from torch.nn.functional import cosine_similarity
from transformers.pytorch_utils import Conv1D

from revs_tars_plugin import InputError
from revs_tars_plugin.edits.places import WeightPlace
from revs_tars_plugin.edits.trial import TrialEdits
from revs_tars_plugin.model.decoder import Decoder, FeedForwardMatrix
from revs_tars_plugin.tars.affinity import Candidate, Neurons, affinities, best_candidates
from revs_tars_plugin.tars.common_state import without_common
from revs_tars_plugin.tars.concept_vector import concept_states
from revs_tars_plugin.tars.concepts import read_concepts
from revs_tars_plugin.tars.reversal import Reverser, reversed_vector
from revs_tars_plugin.tars.targeting_vector import name_probabilities, refined_by_noise, whitened

PROMPTS = [(1, 2, 3), (4, 5, 6, 7, 8)]


@pytest.fixture
def decoder(model):
    return Decoder.of(model, tiny_tars(layers=[0, 2]))


# Reading requests.


def test_requests_of_one_name_are_prompts_of_one_concept(tok):
    requests = [
        {"prompt": "w1 w2", "ground_truth": "w9"},
        {"prompt": "w3 w4", "ground_truth": "w8"},
        {"prompt": "w5", "ground_truth": "w9", "target_new": "w1"},
    ]
    first, second = read_concepts(requests, tok, tiny_tars())
    assert (first.name, first.requests) == ("w9", (0, 2))
    assert first.prompts == (tuple(tok("w1 w2")["input_ids"]), tuple(tok("w5")["input_ids"]))
    assert (second.name, second.requests) == ("w8", (1,))
    assert first.tokens[0] == tok("w9")["input_ids"][0]


def test_ends_of_prompts_and_the_name_behind_them(tok):
    requests = [{"prompt": prompt, "ground_truth": "w8 w9"} for prompt in ("w1 w2 w3", "w4 w2 w3", "w5")]
    (concept,) = read_concepts(requests, tok, tiny_tars(short_prompts=2))
    ids = {word: tok(word)["input_ids"][0] for word in ("w1", "w2", "w3", "w4", "w5", "w8", "w9")}
    end, name = (ids["w2"], ids["w3"]), (ids["w8"], ids["w9"])
    assert concept.shortened == (end,)
    assert set(concept.named) == {(*prompt, *name) for prompt in (*concept.prompts, end)}
    assert read_concepts(requests, tok, tiny_tars(short_prompts=0))[0].shortened == ()


def test_a_description_becomes_a_prompt(tok):
    hparams = tiny_tars(prompt_template="w1 {} w2")
    (concept,) = read_concepts([{"description": "w5 w6", "ground_truth": "w9"}], tok, hparams)
    assert concept.prompts == (tuple(tok("w1 w5 w6 w2")["input_ids"]),)
    with pytest.raises(InputError, match=r'Request 0 has neither a "prompt" nor a "description"'):
        read_concepts([{"ground_truth": "w9"}], tok, hparams)


def test_spellings_of_the_name_are_targeted_unless_switched_off(tok):
    words = {"Name": 201, "name": 202}
    tok.add_tokens(list(words))
    ids = {tok.convert_tokens_to_ids(word) for word in words}
    request = [{"prompt": "w1", "ground_truth": "Name"}]
    assert set(read_concepts(request, tok, tiny_tars())[0].tokens) == ids
    assert read_concepts(request, tok, tiny_tars(name_variants=False))[0].tokens == (tok.convert_tokens_to_ids("Name"),)


# Step 1.


@pytest.mark.parametrize(("layer", "position"), [(-1, -1), (1, 0), (0, -2)])
def test_the_concept_vector_is_the_mean_of_the_prompts_states(model, decoder, layer, position):
    states = concept_states(decoder, PROMPTS, layer, position)
    expected = []
    for prompt in PROMPTS:
        seen = []
        handle = model.model.layers[layer].register_forward_hook(lambda _m, _a, output, seen=seen: seen.append(output))
        with torch.no_grad():
            model(torch.tensor([prompt]))
        handle.remove()
        output = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
        expected.append(output[0, position] if output.dim() == 3 else output[position])
    torch.testing.assert_close(states.vector, torch.stack(expected).mean(0), rtol=1e-4, atol=1e-4)
    assert states.activations.keys() == {0, 2}
    assert states.activations[2].shape == (2, 64)


def test_layers_and_positions_that_do_not_exist_are_named(decoder):
    with pytest.raises(InputError, match="concept_layer is 3, but the model has layers 0 to 2"):
        concept_states(decoder, PROMPTS, 3, -1)
    with pytest.raises(InputError, match="concept_position is -4, but a concept prompt has only 3 tokens"):
        concept_states(decoder, PROMPTS, -1, -4)


# Step 2.


def test_the_whitened_vector_solves_with_the_gram_matrix(model, decoder):
    head = model.lm_head.weight.detach().double()
    expected = torch.linalg.solve(head.T @ head, head[[7, 9]].T).sum(dim=1)
    found = whitened(decoder.lens, [7, 9])
    assert float(cosine_similarity(found.double(), expected, dim=0)) == pytest.approx(1, abs=1e-5)
    assert float(found.norm()) == pytest.approx(1, abs=1e-5)


def noise(decoder, **changes):
    concept = concept_states(decoder, PROMPTS, -1, -1).vector
    settings = {"probability": 0.5, "scale": 0.5, "candidates": 64, "rounds": 30, **changes}
    generator = torch.Generator().manual_seed(0)
    return concept, refined_by_noise(decoder.lens, concept, [7], generator=generator, **settings)


def test_noise_finds_a_vector_that_triggers_the_name(model, decoder):
    concept, found = noise(decoder)
    before, after = name_probabilities(decoder.lens.full_logits(torch.stack([concept, found])), [7])
    assert before < 0.1
    assert after >= 0.5
    with torch.no_grad():  # the same by the model's own modules
        own = model.lm_head(model.model.norm(found)).softmax(-1)[7]
    assert float(after) == pytest.approx(float(own), rel=1e-3)
    assert torch.equal(found, noise(decoder)[1])


def test_the_best_candidate_is_named_when_none_is_good_enough(decoder):
    with pytest.raises(InputError, match=r"targeting_probability 0\.999; the best found has [0-9.e-]+\. Lower it"):
        noise(decoder, probability=0.999, rounds=1, scale=0.01)


def test_what_all_states_share_is_taken_off():
    common = torch.tensor([2.0, 0.0, 0.0])
    found = without_common(torch.tensor([3.0, 1.0, -1.0]), common)
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0, -1.0]))


# Step 3.


def neurons(matrix="down", layer=0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    module = torch.nn.Linear(20, 6, bias=False) if matrix == "down" else torch.nn.Linear(6, 20, bias=False)
    with torch.no_grad():
        module.weight.normal_(generator=generator)
    weights = FeedForwardMatrix(module, "w", neuron_dim=1 if matrix == "down" else 0)
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


# Step 4.


@pytest.mark.parametrize("sign", [1, -1])
def test_the_reversed_vector_keeps_its_length_and_points_the_other_way(sign):
    old, targeting = torch.randn(8), torch.randn(8)
    new = reversed_vector(old, targeting, sign, 1.5)
    assert float(new.norm()) == pytest.approx(1.5 * float(old.norm()), rel=1e-5)
    # What the neuron adds is its sign times the vector.
    assert float(cosine_similarity(sign * new, targeting, dim=0)) == pytest.approx(-1, abs=1e-5)


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
        reverser = Reverser(matrices, targeting, 1.0, trial)
        done, last = reverser.reverse_until(candidates, lambda: next(probabilities), goal=0.1)
        assert last == 0.05
        assert [candidate.neuron for candidate in done.chosen] == [7, 2, 5]
        changed = (module.weight.detach() != before["weight"]).any(dim=1 - dim).nonzero().flatten()
        assert changed.tolist() == [2, 5, 7]
        (edit,) = done.edits(matrices)
        assert edit.indices.tolist() == [2, 5, 7]
        assert edit.stands_in(WeightPlace(module, "weight"), applied=True)
        reverser.take_back(done)
        assert_same_bits(module, before)
