"""The targeting vector: in closed form, and by the published search."""

import pytest
import torch
from torch.nn.functional import cosine_similarity

from revs_tars_plugin import InputError
from revs_tars_plugin.tars.concept_vector import concept_states
from revs_tars_plugin.tars.targeting_vector import name_probabilities, refined_by_noise, whitened

PROMPTS = [(1, 2, 3), (4, 5, 6, 7, 8)]


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
