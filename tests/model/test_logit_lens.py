"""The demotion direction against the published recipe: project, lower one logit, project back with a pseudo-inverse."""

import pytest
import torch
from helpers import LLAMA_NAMES
from torch import nn

from revs_tars_plugin.errors import InputError
from revs_tars_plugin.model.logit_lens import LogitLens


def lens_of(model):
    names = LLAMA_NAMES["lm_head_module"], LLAMA_NAMES["ln_f_module"]
    return LogitLens(model.lm_head, names[0], model.model.norm, names[1])


def published_edit(vector, head, gain, token, lowered_by):
    """One edit as the paper does it, in float64: to logits, change one, back through pseudo-inverse and norm."""
    logits = head @ (gain * vector)
    logits[token] -= lowered_by
    return (torch.linalg.pinv(head) @ logits) / gain


def test_the_direction_is_what_projecting_back_does(model):
    lens = lens_of(model)
    head, gain = model.lm_head.weight.detach().double(), model.model.norm.weight.detach().double()
    vector = torch.randn(32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    demotion = lens.demotions(torch.tensor([7]))
    for lowered_by in (0.3, 12.0):
        expected = published_edit(vector, head, gain, 7, lowered_by)
        torch.testing.assert_close(
            vector - lowered_by * demotion.directions[0].double(), expected, rtol=1e-5, atol=1e-5
        )


def test_the_exact_step_agrees_with_a_slow_search_of_the_published_edit(model):
    lens = lens_of(model)
    head, gain = model.lm_head.weight.detach().double(), model.model.norm.weight.detach().double()
    vectors = torch.randn(4, 32, generator=torch.Generator().manual_seed(2))
    for token, rank in ((3, 20), (150, 120)):

        def rank_of(vector, lowered_by, token=token):
            logits = head @ (gain * published_edit(vector.double(), head, gain, token, lowered_by))
            return int((logits > logits[token]).sum())

        steps = lens.steps_to_rank(vectors, lens.demotions(torch.full((4,), token)), rank)
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
    lens = lens_of(model)
    ids = tok("w1 w2 w3", return_tensors="pt").input_ids
    with torch.no_grad():
        hidden = []
        handle = model.model.layers[-1].register_forward_hook(
            lambda _m, _a, out: hidden.append(out[0] if isinstance(out, tuple) else out)
        )
        logits = model(ids).logits[0, -1]
        handle.remove()
    for token in (0, 5, 77):
        assert int(lens.ranks(hidden[0][0, -1:], torch.tensor([token]))) == int((logits > logits[token]).sum())


def through_data(head):
    head.weight.data.mul_(2.0)


def another_parameter(head):
    """In the old one's memory, as an allocator may well put it there."""
    memory = head.weight.data
    doubled = memory * 2.0
    head.weight = nn.Parameter(memory.copy_(doubled))


@pytest.mark.parametrize("change", [through_data, another_parameter])
def test_a_head_that_changed_has_its_own_directions(model, change):
    """Neither change leaves a mark on the tensor by which something kept from before could be told to be stale."""
    five = torch.tensor([5])
    before = lens_of(model).demotions(five).directions
    assert not [name for name in vars(model.lm_head) if "gram" in name]
    change(model.lm_head)
    after = lens_of(model).demotions(five).directions
    torch.testing.assert_close(after, before / 2, rtol=1e-4, atol=1e-5)


def test_fewer_tokens_than_dimensions_still_has_a_direction():
    norm = nn.RMSNorm(32)
    lens = LogitLens(nn.Linear(32, 20, bias=False), "lm_head", norm, "norm")
    response = lens.demotions(torch.tensor([3])).responses[0]
    assert response[3] == pytest.approx(1.0, abs=1e-3)
    assert response[torch.arange(20) != 3].abs().max() < 1e-3


def filled(module, generator):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


@pytest.mark.parametrize("norm_class", [nn.LayerNorm, nn.RMSNorm])
@pytest.mark.parametrize("rank", [5, 30])
def test_layer_norm_and_biases_against_a_slow_search_in_float64(norm_class, rank):
    """GPT-2 and GPT-J: the norm centres, shifts, and the head may have a bias, so the logits are no straight lines."""
    generator = torch.Generator().manual_seed(4)
    head, norm = filled(nn.Linear(32, 60), generator), filled(norm_class(32), generator)
    lens = LogitLens(head, "lm_head", norm, "norm")
    assert lens.has_offsets
    vectors, tokens = torch.randn(6, 32, generator=generator), torch.arange(6) * 7
    exact_head, exact_norm = head.double(), norm.double()

    def slow_rank(vector, token):
        logits = exact_head(exact_norm(vector)).detach()
        return int((logits > logits[token]).sum())

    demotions = lens.demotions(tokens)
    steps = lens.steps_to_rank(vectors, demotions, rank)
    for row in range(6):
        vector, direction = vectors[row].double(), demotions.directions[row].double()
        assert int(lens.ranks(vectors, tokens)[row]) == slow_rank(vector, tokens[row])
        step = float(steps[row])
        if step == float("inf"):
            assert max(slow_rank(vector - s * direction, tokens[row]) for s in torch.logspace(-2, 4, 200)) < rank
        elif step > 0:
            assert slow_rank(vector - step * (1 + 1e-4) * direction, tokens[row]) >= rank
            assert slow_rank(vector - step * (1 - 1e-4) * direction, tokens[row]) < rank


@pytest.mark.parametrize(
    ("head", "norm", "message"),
    [
        (nn.Linear(16, 50, bias=False), nn.RMSNorm(32), "check both names"),
        (nn.Identity(), nn.RMSNorm(32), "without a V x d weight"),
    ],
)
def test_heads_and_norms_that_are_not_covered_are_refused(head, norm, message):
    with pytest.raises(InputError, match=message):
        LogitLens(head, "lm_head", norm, "norm")


def test_with_alternatives_their_mean_rises_as_the_token_falls(model):
    lens = lens_of(model)
    head, gain = model.lm_head.weight.detach().double(), model.model.norm.weight.detach().double()
    demotions = lens.demotions(torch.tensor([7, 9]), [(1, 2, 2), ()])
    wanted = torch.zeros(len(head), dtype=torch.float64)
    wanted[7], wanted[1], wanted[2] = 1, -1 / 3, -2 / 3
    torch.testing.assert_close(
        demotions.directions[0].double(), torch.linalg.pinv(head) @ wanted / gain, rtol=1e-4, atol=1e-6
    )
    assert torch.equal(demotions.directions[1], lens.demotions(torch.tensor([9])).directions[0])
    fallen = -demotions.responses[0]
    assert fallen[7] < 0 < fallen[[1, 2]].mean()


@pytest.mark.parametrize("norm_class", [nn.LayerNorm, None])
def test_the_step_to_a_log_probability_gets_there_and_a_smaller_one_does_not(model, norm_class):
    lens = lens_of(model)
    if norm_class is not None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            norm, head = norm_class(32), nn.Linear(32, 200)
            nn.init.normal_(norm.weight, 1.0, 0.3)
            nn.init.normal_(norm.bias)
        lens = LogitLens(head, "lm_head", norm, "norm")
    vectors = 3 * torch.randn(5, 32, generator=torch.Generator().manual_seed(2))
    tokens = lens.full_logits(vectors).argmax(dim=-1)
    demotions = lens.demotions(tokens, [(3, 4)] * 5)
    asked = torch.tensor([-5.5, -6.0, -5.8, -5.0, 0.0], dtype=torch.float64)
    steps = lens.steps_to_log_probability(vectors, demotions, asked)

    def log_probabilities(moves):
        moved = vectors - moves[:, None].float() * demotions.directions
        return lens.full_logits(moved).double().log_softmax(dim=-1).gather(1, tokens[:, None])[:, 0]

    reachable = steps.isfinite()
    assert reachable.sum() >= 4 and steps[4] == 0
    assert (log_probabilities(steps) <= asked + 1e-3)[reachable].all()
    missing = log_probabilities(torch.zeros(5)) - asked
    assert (log_probabilities(steps) >= asked - missing / 250 - 1e-3)[:4][reachable[:4]].all()
    assert (log_probabilities(0.85 * steps) > asked)[:4][reachable[:4]].all()
    # Where a norm divides by what grows with the step, some levels are never reached.
    for step in torch.logspace(-2, 4, 200, dtype=torch.float64):
        assert (log_probabilities(step.expand(5)) > asked)[~reachable].all()


def slow_direction(lens_model, token, gain, ridge):
    """The ridge solution in float64, and how far along it one logit falls: what is written, and its logits."""
    head, norm = lens_model.lm_head.weight.detach().double(), lens_model.model.norm.weight.detach().double()
    seen = head * (norm * gain)
    normal = seen.T @ seen
    written = torch.linalg.solve(normal + ridge * normal.diagonal().mean() * torch.eye(len(norm)), seen[token])
    return written, seen @ written


@pytest.mark.parametrize("ridge", [1e-3, 0.1, 3.0])
@pytest.mark.parametrize("gained", [False, True])
def test_a_ridge_is_that_of_least_squares(model, ridge, gained):
    gain = torch.logspace(-2, 2, 32) if gained else None
    wide = torch.ones(32, dtype=torch.float64) if gain is None else gain.double()
    written, response = slow_direction(model, 7, wide, ridge)
    demotions = lens_of(model).demotions(torch.tensor([7]), ridge=ridge, gain=gain)
    torch.testing.assert_close(demotions.directions[0].double(), wide * written, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(demotions.responses[0].double(), response, rtol=1e-3, atol=1e-5)


def test_a_ridge_takes_a_shorter_way_to_the_same_logit(model):
    """Where gains are uneven, what has to be written without one goes into coordinates that hardly get through."""
    gain = torch.logspace(-2, 2, 32)
    lens = lens_of(model)
    lengths, others = [], []
    for ridge in (0.0, 1e-6, 1e-3, 0.1):
        demotions = lens.demotions(torch.tensor([7]), ridge=ridge, gain=gain)
        response = demotions.responses[0] / demotions.responses[0, 7]
        lengths.append(float((demotions.directions[0] / gain / demotions.responses[0, 7]).norm()))
        others.append(float(response.square().sum()))
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] < 0.1 * lengths[0]
    assert others == sorted(others)
    # The smallest is the direction without one.
    tiny, none = (lens.demotions(torch.tensor([7]), ridge=ridge).directions for ridge in (1e-12, 0.0))
    torch.testing.assert_close(tiny, none, rtol=1e-3, atol=1e-4)
