"""Support-vector keys: at least what is asked, at the least cost."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from revs_tars_plugin.revs.covariance import solve_jointly
from revs_tars_plugin.revs.support_vectors import solve_by_support_vectors, support_multipliers

WIDTH, RESIDUAL = 12, 5


@pytest.fixture
def problem():
    """Contexts of two tokens and of one that asks for nothing, and what must not change."""
    generator = torch.Generator().manual_seed(0)
    keys = 1 + 0.5 * torch.randn(7, WIDTH, generator=generator)  # alike, as contexts of one token are
    root = torch.randn(WIDTH, WIDTH, generator=generator) + 3 * torch.eye(WIDTH)
    return {
        "keys": keys,
        "steps": torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0, 0.0, 2.0], dtype=torch.float64),
        "groups": torch.tensor([0, 0, 0, 1, 1, 2, 0]),
        "directions": torch.randn(3, RESIDUAL, generator=generator),
        "factors": [torch.linalg.cholesky(root @ root.T)],
    }


def test_every_context_moves_at_least_its_step_along_its_own_direction(problem):
    readers, values = solve_by_support_vectors(**problem, soft_margin=0.0)
    assert torch.equal(values, -problem["directions"][:2])  # the third token has nowhere to go
    responses = problem["keys"] @ readers
    for context, (step, group) in enumerate(zip(problem["steps"], problem["groups"], strict=True)):
        if step > 0:
            assert responses[context, group] >= step - 1e-4
    # A smaller change of the same kind misses it.
    assert (problem["keys"] @ readers * 0.99 < problem["steps"][:, None] - 1e-3)[3, 1]


def test_the_key_costs_what_a_slow_oracle_finds_and_less_than_the_exact_one(problem):
    readers, _ = solve_by_support_vectors(**problem, soft_margin=0.0)
    moment = (problem["factors"][0] @ problem["factors"][0].T).double().numpy()
    rows = (problem["groups"] == 0).nonzero().flatten()
    keys, steps = problem["keys"][rows].double().numpy(), problem["steps"][rows].numpy()
    oracle = minimize(
        lambda w: w @ moment @ w,
        np.zeros(WIDTH),
        jac=lambda w: 2 * moment @ w,
        constraints={"type": "ineq", "fun": lambda w: keys @ w - steps, "jac": lambda _w: keys},
        options={"maxiter": 1000, "ftol": 1e-14},
        method="SLSQP",
    )
    assert oracle.success
    key = readers[:, 0].double().numpy()
    assert np.allclose(key, oracle.x, atol=1e-4)
    exact, values = solve_jointly(
        problem["keys"][rows], problem["steps"][rows], torch.ones(len(rows), 1), problem["factors"], 0.0
    )
    whole = (exact @ -values)[:, 0].double().numpy()
    assert np.allclose(keys @ whole, steps, atol=1e-3)
    assert key @ moment @ key < 0.99 * (whole @ moment @ whole)


def test_multipliers_are_positive_only_where_the_step_is_met_exactly():
    generator = np.random.default_rng(0)
    root = 1 + 0.5 * generator.normal(size=(6, 9))
    overlaps, steps = root @ root.T, np.array([1.0, 5.0, 0.1, 2.0, 0.1, 0.3])
    multipliers = support_multipliers(overlaps, steps)
    moved = overlaps @ multipliers
    assert (multipliers >= 0).all() and (multipliers > 1e-9).any() and (multipliers <= 1e-9).any()
    assert (moved >= steps - 1e-6).all()
    assert np.allclose(moved[multipliers > 1e-9], steps[multipliers > 1e-9], atol=1e-6)


def test_equal_contexts_are_one(problem):
    twice = {**problem, "keys": problem["keys"].clone()}
    twice["keys"][1] = twice["keys"][0]
    readers, _ = solve_by_support_vectors(**twice, soft_margin=0.0)
    assert (twice["keys"] @ readers)[1, 0] >= 2 - 1e-3


def test_a_soft_margin_lets_a_context_stay_short_and_costs_less(problem):
    strict, _ = solve_by_support_vectors(**problem, soft_margin=0.0)
    soft, _ = solve_by_support_vectors(**problem, soft_margin=0.5)
    responses = problem["keys"] @ soft
    assert (responses[[0, 1, 2, 6], 0] < problem["steps"][[0, 1, 2, 6]]).any()
    cost = [(problem["factors"][0].T @ readers[:, 0]).square().sum() for readers in (soft, strict)]
    assert cost[0] < cost[1]
