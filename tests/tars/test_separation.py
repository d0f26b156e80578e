"""The row of weights that tells a few states from many."""

import torch

from revs_tars_plugin.tars.separation import separating_row


def drawn(seed=0, width=24):
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(width, generator=generator)
    found = 0.3 * torch.randn(6, width, generator=generator) + direction
    return found, torch.randn(400, width, generator=generator)


def loss(row, found, others):
    """The loss in float64, as its definition says."""
    near = (1 - found.double() @ row).clamp_min(0).square().mean()
    far = (others.double() @ row + 1).clamp_min(0).square().mean()
    return near + 100 * far + 1e-3 * others.double().square().mean() * row.square().sum()


def test_it_is_the_least_loss_of_a_slow_float64_search():
    found, others = drawn()
    row = separating_row(found, others)
    best = row.double().mul(0).requires_grad_()
    search = torch.optim.LBFGS([best], max_iter=2000, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

    def closure():
        search.zero_grad()
        value = loss(best, found, others)
        value.backward()
        return value

    search.step(closure)
    assert float(loss(row.double(), found, others)) < 1.02 * float(loss(best.detach(), found, others))


def test_what_is_found_and_what_is_left_alone_are_on_their_sides():
    generator = torch.Generator().manual_seed(1)
    others = torch.cat([torch.randn(400, 24, generator=generator), torch.ones(400, 1)], dim=1)
    found = torch.cat([3 * torch.randn(1, 24, generator=generator).repeat(4, 1), torch.ones(4, 1)], dim=1)
    row = separating_row(found, others)
    assert float((found @ row).min()) > 0.5
    assert float((others @ row > 0).float().mean()) < 0.01
