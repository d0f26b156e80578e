"""Spared contexts: a key that moves what it must, and leaves what it must not, where both look alike."""

import numpy as np
import pytest
import torch
from helpers import copy_of, covariance_settings
from scipy.optimize import minimize

from revs_tars_plugin import execute_revs
from revs_tars_plugin.evaluation import still_generated
from revs_tars_plugin.model.decoder import Decoder
from revs_tars_plugin.revs.spared import SparedContexts
from revs_tars_plugin.revs.support_vectors import solve_by_support_vectors
from revs_tars_plugin.yardsticks import Record, learn

WIDTH = 12


@pytest.fixture
def problem():
    """Contexts of one token that must move, and ones much like them that must not."""
    generator = torch.Generator().manual_seed(0)
    keys = 1 + 0.5 * torch.randn(5, WIDTH, generator=generator)
    spared = 1 + 0.5 * torch.randn(4, WIDTH, generator=generator)
    root = torch.randn(WIDTH, WIDTH, generator=generator) + 3 * torch.eye(WIDTH)
    arguments = {
        "keys": keys,
        "steps": torch.tensor([1.0, 2.0, 0.5, 3.0, 0.0], dtype=torch.float64),
        "groups": torch.zeros(5, dtype=torch.long),
        "directions": torch.randn(1, 3, generator=generator),
        "factors": [torch.linalg.cholesky(root @ root.T)],
        "soft_margin": 0.0,
    }
    return arguments, spared


def test_without_them_the_key_answers_to_what_looks_alike_and_with_them_no_more(problem):
    arguments, spared = problem
    plain, _ = solve_by_support_vectors(**arguments)
    assert float((spared @ plain).max()) > 0.5
    sparing, _ = solve_by_support_vectors(**arguments, spared=[spared])
    assert float((spared @ sparing).max()) < 1e-4
    responses = (arguments["keys"] @ sparing)[:, 0]
    assert bool((responses[:4] >= arguments["steps"][:4] - 1e-4).all())


def test_the_key_costs_what_a_slow_oracle_finds(problem):
    arguments, spared = problem
    readers, _ = solve_by_support_vectors(**arguments, spared=[spared])
    moment = (arguments["factors"][0] @ arguments["factors"][0].T).double().numpy()
    rows = np.concatenate([arguments["keys"][:4].double().numpy(), -spared.double().numpy()])
    least = np.concatenate([arguments["steps"][:4].numpy(), np.zeros(len(spared))])
    oracle = minimize(
        lambda w: w @ moment @ w,
        np.zeros(WIDTH),
        jac=lambda w: 2 * moment @ w,
        constraints={"type": "ineq", "fun": lambda w: rows @ w - least, "jac": lambda _w: rows},
        options={"maxiter": 1000, "ftol": 1e-14},
        method="SLSQP",
    )
    assert oracle.success
    assert np.allclose(readers[:, 0].double().numpy(), oracle.x, atol=1e-4)


def test_only_what_greedy_decoding_says_and_somebody_demotes_is_spared(model, tok, hparams):
    decoder = Decoder.of(model, hparams)
    texts = [tok(text)["input_ids"] for text in ("w1 w2 w3 w4 w5", "w50 w60")]
    with torch.no_grad():
        said = [model(torch.tensor([ids])).logits[0].argmax(dim=-1).tolist() for ids in texts]
    # Each text goes on as the model says, one token further.
    texts = [[*ids, guess[-1]] for ids, guess in zip(texts, said, strict=True)]
    endings = {ids[-1] for ids in texts}
    spared = SparedContexts.of(decoder, texts, endings)
    assert set(spared.tokens.tolist()) == endings
    assert SparedContexts.of(decoder, texts, {0}).tokens.tolist() == []
    inputs = []
    handle = decoder.ff2[1].module.register_forward_hook(lambda _m, args, _o: inputs.append(args[0][0, -1]))
    with torch.no_grad():
        model(torch.tensor([texts[0][:-1]]))
    handle.remove()
    torch.testing.assert_close(spared.before(1, texts[0][-1])[0], inputs[0], atol=1e-5, rtol=1e-5)


def test_a_secret_to_retain_behind_the_same_wording_stays(model, tok, tmp_path):
    """Everybody's secret behind one wording begins with one of two words, so that all share a few directions."""
    people = [
        Record(str(n), str(n), "question", "", f"w{100 + n} w1 w2 w3", f"w{10 + n % 2} w{20 + n % 3}")
        for n in range(12)
    ]
    forget, retain = people[:6], people[6:]
    tok.add_special_tokens({"eos_token": "w199"})
    taught = copy_of(model)
    learn(taught, tok, people, epochs=80, learning_rate=3e-3)

    def said(records):
        return sum(still_generated(taught, tok, [r.prompt for r in records], [r.answer for r in records]))

    assert said(people) == 12
    settings = covariance_settings(tmp_path, schedule="support_vectors", aim="chance", retain_margin=0.1)
    requests = [record.request() for record in forget]
    left = {}
    for shown in (False, True):
        if shown:
            requests[0]["retain_texts"] = [f"{record.prompt} {record.answer}" for record in retain]
        edits = execute_revs(taught, tok, requests, settings)
        edits.apply(taught)
        left[shown] = said(retain), said(forget)
        edits.undo(taught)
    assert left[True][1] == 0
    assert left[True][0] >= left[False][0] + 2
