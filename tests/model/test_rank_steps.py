"""The exact step against slow float64 references."""

import pytest
import torch

from revs_tars_plugin.model import rank_steps
from revs_tars_plugin.model.rank_steps import smallest_steps_by_bisection, smallest_steps_by_secants


def ranks(logits, token):
    """All rows ask for the same token."""
    return rank_steps.ranks(logits, torch.full((len(logits),), token))


def smallest_steps(logits, response, token, rank):
    """All rows ask for the same token."""
    tokens = torch.full((len(logits),), token)
    return rank_steps.smallest_steps(logits, response.expand_as(logits), tokens, rank)


def rank_at(logits, response, token, step):
    """The rank after a step, counted in float64."""
    moved = logits.double() - step * response.double()
    return int((moved > moved[token]).sum())


def slow_smallest_step(logits, response, token, rank):
    """Tries every place where any token crosses the target, from the nearest on."""
    if rank_at(logits, response, token, 0.0) >= rank:
        return 0.0
    gap = logits[token].double() - logits.double()
    speed = response[token].double() - response.double()
    crossings = sorted({float(c) for c, s in zip(gap / speed, speed, strict=True) if s != 0 and c >= 0})
    for near, far in zip(crossings, [*crossings[1:], None], strict=True):
        inside = near * 2 + 1 if far is None else (near + far) / 2
        if rank_at(logits, response, token, inside) >= rank:
            return near
    return float("inf")


def random_case(seed, *, losing):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(7, 300, generator=generator) * 5
    response = torch.randn(300, generator=generator) * (0.5 if losing else 0.1)
    token = 17
    response[token] = 0.8 if losing else 1.0
    return logits, response, token


@pytest.mark.parametrize("losing", [False, True], ids=["monotone", "with tokens that fall faster"])
@pytest.mark.parametrize("rank", [1, 5, 60, 200])
@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_smallest_step_that_reaches_the_rank(seed, rank, losing):
    logits, response, token = random_case(seed, losing=losing)
    steps = smallest_steps(logits, response, token, rank)
    for row, step in zip(logits, steps.tolist(), strict=True):
        expected = slow_smallest_step(row, response, token, rank)
        assert step == pytest.approx(expected, rel=1e-6)
        if step == float("inf"):
            continue
        assert rank_at(row, response, token, step) >= rank
        if step > 0:
            assert rank_at(row, response, token, step * (1 - 1e-6)) < rank


@pytest.mark.parametrize("whole_responses", [False, True], ids=["any responses", "whole responses"])
def test_tokens_that_are_level_with_the_target_are_overtaken(whole_responses):
    """Whole logits, as half precision has them: many tokens stand level, now or at one and the same later step."""
    level = 0
    for seed in range(750):
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randint(-4, 5, (2, 40), generator=generator).float()
        response = torch.randn(40, generator=generator) * 0.5
        response = (response * 4).round() if whole_responses else response
        response[17] = 3.0 if whole_responses else 1.0
        rank = int(torch.randint(1, 36, (1,), generator=generator))
        for row, step in zip(logits, smallest_steps(logits, response, 17, rank).tolist(), strict=True):
            expected = slow_smallest_step(row, response, 17, rank)
            assert step == pytest.approx(expected, rel=1e-6, abs=1e-9)
            if step in (0.0, float("inf")):
                continue
            level += expected == 0.0
            assert rank_at(row, response, 17, step) >= rank
            # A crossing at 0 is missed without any step; elsewhere a step that is a little smaller misses it.
            assert rank_at(row, response, 17, step * (1 - 1e-6) if expected else 0.0) < rank
    assert level > 100


def test_the_case_with_losses_really_occurs():
    logits, response, token = random_case(0, losing=True)
    falls_faster = (response > response[token]) & (logits > logits[:, token : token + 1])
    assert falls_faster.any()


def test_a_rank_that_is_there_already_needs_no_step():
    logits, response, token = random_case(0, losing=False)
    lowest = int(ranks(logits, token).min())
    assert (smallest_steps(logits, response, token, lowest) == 0).all()
    assert (smallest_steps(logits, response, token, 0) == 0).all()


def test_a_rank_beyond_the_vocabulary_is_out_of_reach():
    logits, response, token = random_case(0, losing=False)
    assert smallest_steps(logits, response, token, 300).isinf().all()


def test_tokens_that_move_with_the_target_never_overtake_it():
    logits = torch.tensor([[3.0, 2.0, 1.0, 4.0]])
    response = torch.tensor([1.0, 1.0, 0.0, 1.0])
    # Only token 2 can overtake token 0; token 3 stands above it for good, token 1 below it.
    assert float(smallest_steps(logits, response, 0, 2)) == pytest.approx(2.0)
    assert float(smallest_steps(logits, response, 0, 3)) == float("inf")


def test_each_row_has_its_own_token_and_response():
    logits, _, _ = random_case(3, losing=False)
    responses = torch.randn(7, 300, generator=torch.Generator().manual_seed(9)) * 0.1
    tokens = torch.arange(7) * 11
    responses[torch.arange(7), tokens] = 1.0
    together = rank_steps.smallest_steps(logits, responses, tokens, 40)
    for row in range(7):
        alone = smallest_steps(logits[row : row + 1], responses[row], int(tokens[row]), 40)
        assert float(together[row]) == float(alone)


def test_bisection_finds_the_same_steps_where_lines_are_straight():
    logits, response, token = random_case(1, losing=False)
    tokens = torch.full((7,), token)

    def ranks_at(steps):
        return rank_steps.ranks(logits.double() - steps[:, None] * response.double(), tokens)

    for rank in (5, 120):
        found = smallest_steps_by_bisection(ranks_at, torch.full((7,), 0.01).double(), rank)
        torch.testing.assert_close(found, smallest_steps(logits, response, token, rank), rtol=1e-6, atol=1e-9)
    assert smallest_steps_by_bisection(ranks_at, torch.ones(7).double(), 300).isinf().all()


def test_secants_pass_the_asked_figure_by_little_and_with_few_evaluations():
    generator = torch.Generator().manual_seed(0)
    slopes = torch.rand(400, generator=generator, dtype=torch.float64) * 3 + 0.1
    ceilings = torch.rand(400, generator=generator, dtype=torch.float64) * 20 + 1
    evaluations = []

    def values_at(steps):
        evaluations.append(len(steps))
        return torch.nn.functional.softplus(slopes * steps - 5).minimum(ceilings)

    asked = torch.rand(400, generator=generator, dtype=torch.float64) * 15
    asked[0] = 0.0  # reached before any step
    steps = smallest_steps_by_secants(values_at, torch.full((400,), 0.05).double(), asked)
    assert len(evaluations) < 40
    evaluations.clear()
    smallest_steps_by_secants(values_at, torch.full((400,), 0.05).double(), asked.minimum(0.9 * ceilings))
    assert len(evaluations) < 24  # where every figure is in reach; halving would take 40 for as much
    reachable = asked <= ceilings
    assert 0 < (~reachable).sum() < 400
    assert steps[0] == 0
    assert steps[~reachable].isinf().all() and steps[reachable].isfinite().all()
    passed = (values_at(steps) - asked)[reachable]
    assert (passed >= -1e-9).all()
    assert (passed[1:] <= asked[reachable][1:] / 250 + 1e-9).all()
