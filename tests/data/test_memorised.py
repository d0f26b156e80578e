"""Synthetic secrets, and a model that learns them by heart."""

import pytest
import torch

from revs_tars_plugin.data.memorised import memorise
from revs_tars_plugin.data.synthetic import TEMPLATES, synthetic_secrets
from revs_tars_plugin.evaluation import greedy_continuation


def test_secrets_are_the_same_for_the_same_seed_and_never_repeat():
    secrets = synthetic_secrets(per_template=3, seed=5)
    assert secrets == synthetic_secrets(per_template=3, seed=5)
    assert secrets[0] != synthetic_secrets(per_template=3, seed=6)[0]
    assert len(secrets) == 3 * sum(map(len, TEMPLATES.values()))
    assert len({secret.target for secret in secrets}) == len({secret.subject for secret in secrets}) == len(secrets)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_every_kind_has_six_templates_with_two_wordings_that_name_the_subject(kind):
    assert len(TEMPLATES[kind]) >= 6
    for secret in synthetic_secrets(per_template=1):
        assert secret.subject in secret.prompt
        assert secret.subject in secret.rephrase_prompt[0]
        assert secret.prompt != secret.rephrase_prompt[0]


def test_a_model_learns_texts_by_heart(model, tok):
    text, other = "w1 w2 w3 w9 w8 w7", "w11 w12 w13 w19 w18 w17"
    assert greedy_continuation(model, tok, "w1 w2 w3", 3) != "w9 w8 w7"
    losses = []
    memorise(
        model, tok, [text, other], epochs=30, learning_rate=1e-2, progress=lambda _epoch, loss: losses.append(loss)
    )
    assert losses[-1] < 0.1 * losses[0]
    assert greedy_continuation(model, tok, "w1 w2 w3", 3) == "w9 w8 w7"
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.is_grad_enabled()
