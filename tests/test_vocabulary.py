"""The demotion direction against the published recipe: project, lower one logit, project back with a pseudo-inverse."""

import pytest
import torch
from helpers import LLAMA_NAMES
from torch import nn

from revs_tars_plugin.errors import InputError
from revs_tars_plugin.vocabulary import Vocabulary


def vocabulary_of(model):
    names = LLAMA_NAMES["lm_head_module"], LLAMA_NAMES["ln_f_module"]
    return Vocabulary(model.lm_head, names[0], model.model.norm, names[1])


def published_edit(vector, head, gain, token, lowered_by):
    """One edit as the paper does it, in float64: to logits, change one, back through pseudo-inverse and norm."""
    logits = head @ (gain * vector)
    logits[token] -= lowered_by
    return (torch.linalg.pinv(head) @ logits) / gain


def test_the_direction_is_what_projecting_back_does(model):
    vocabulary = vocabulary_of(model)
    head, gain = model.lm_head.weight.detach().double(), model.model.norm.weight.detach().double()
    vector = torch.randn(32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    demotion = vocabulary.demotion(7)
    for lowered_by in (0.3, 12.0):
        expected = published_edit(vector, head, gain, 7, lowered_by)
        torch.testing.assert_close(vector - lowered_by * demotion.direction.double(), expected, rtol=1e-5, atol=1e-5)


def test_the_exact_step_agrees_with_a_slow_search_of_the_published_edit(model):
    vocabulary = vocabulary_of(model)
    head, gain = model.lm_head.weight.detach().double(), model.model.norm.weight.detach().double()
    vectors = torch.randn(4, 32, generator=torch.Generator().manual_seed(2))
    for token, rank in ((3, 20), (150, 120)):

        def rank_of(vector, lowered_by, token=token):
            logits = head @ (gain * published_edit(vector.double(), head, gain, token, lowered_by))
            return int((logits > logits[token]).sum())

        steps = vocabulary.steps_to_rank(vocabulary.logits(vectors), vocabulary.demotion(token), rank)
        for vector, step in zip(vectors, steps.tolist(), strict=True):
            if rank_of(vector, 0.0) >= rank:
                assert step == 0
                continue
            low, high = 0.0, 1e4
            for _ in range(80):
                middle = (low + high) / 2
                low, high = (low, middle) if rank_of(vector, middle) >= rank else (middle, high)
            assert step == pytest.approx(high, rel=1e-4)


def test_ranks_are_those_of_the_model_itself(model, tok):
    vocabulary = vocabulary_of(model)
    ids = tok("w1 w2 w3", return_tensors="pt").input_ids
    with torch.no_grad():
        hidden = []
        handle = model.model.layers[-1].register_forward_hook(
            lambda _m, _a, out: hidden.append(out[0] if isinstance(out, tuple) else out)
        )
        logits = model(ids).logits[0, -1]
        handle.remove()
    for token in (0, 5, 77):
        assert int(vocabulary.ranks(hidden[0][0, -1:], token)) == int((logits > logits[token]).sum())


def test_the_gram_factor_is_kept_until_the_head_changes(model):
    vocabulary = vocabulary_of(model)
    first = vocabulary.demotion(5).direction
    factor = vocabulary._gram_factor()
    assert vocabulary_of(model)._gram_factor() is factor
    with torch.no_grad():
        model.lm_head.weight.mul_(2.0)
    assert vocabulary_of(model)._gram_factor() is not factor
    torch.testing.assert_close(vocabulary_of(model).demotion(5).direction, first / 2, rtol=1e-4, atol=1e-5)


def test_fewer_tokens_than_dimensions_still_has_a_direction():
    norm = nn.RMSNorm(32)
    vocabulary = Vocabulary(nn.Linear(32, 20, bias=False), "lm_head", norm, "norm")
    response = vocabulary.demotion(3).response
    assert response[3] == pytest.approx(1.0, abs=1e-3)
    assert response[torch.arange(20) != 3].abs().max() < 1e-3


@pytest.mark.parametrize(
    ("head", "norm", "message"),
    [
        (nn.Linear(32, 50), nn.RMSNorm(32), "has a bias"),
        (nn.Linear(32, 50, bias=False), nn.LayerNorm(32), "LayerNorm"),
        (nn.Linear(16, 50, bias=False), nn.RMSNorm(32), "check both names"),
        (nn.Identity(), nn.RMSNorm(32), "without a V x d weight"),
    ],
)
def test_heads_and_norms_that_are_not_covered_are_refused(head, norm, message):
    with pytest.raises(InputError, match=message):
        Vocabulary(head, "lm_head", norm, "norm")
