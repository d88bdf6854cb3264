"""Class balance: what it costs a view to be of a class that fills more than its part of all directions."""

import math

import pytest
import torch

from mnist3d.training.objectives.class_balance import MEMORY, ClassBalance


def sure(*classes: int, of: int = 3) -> torch.Tensor:
    return 60.0 * torch.eye(of)[list(classes)]


def test_nothing_costs_while_all_have_their_part():
    balance = ClassBalance(4)
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert balance.balance_loss(logits, torch.ones(5)).item() == pytest.approx(0.0, abs=1e-6)


def test_a_class_costs_the_logarithm_of_its_share_and_a_view_what_it_stands_for():
    balance = ClassBalance(3)
    balance.shares.copy_(torch.tensor([0.5, 0.25, 0.25]))
    loss = balance.balance_loss(sure(0, 1), torch.tensor([1.5, 0.5]))
    assert loss.item() == pytest.approx(0.5 * (1.5 * math.log(1.5) + 0.5 * math.log(0.75)), abs=1e-6)
    moved = torch.tensor([0.75, 0.25, 0.0])  # of these two views, weighed
    expected = MEMORY * torch.tensor([0.5, 0.25, 0.25]) + (1.0 - MEMORY) * moved
    torch.testing.assert_close(balance.shares, expected)


def test_shares_that_do_not_add_up_to_one_are_relative():
    """The weights of few views are 1 only in the mean."""
    losses = []
    for factor in (1.0, 0.6):
        balance = ClassBalance(3)
        balance.shares.copy_(factor * torch.tensor([0.5, 0.3, 0.2]))
        losses.append(balance.balance_loss(sure(0, 1, 1), torch.ones(3)).item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_the_gradient_is_that_of_the_entropy_at_the_running_shares():
    balance = ClassBalance(3).double()
    start = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    weights = torch.tensor([2.0, 0.0, 1.0], dtype=torch.float64)
    logits = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()

    def at_the_start(each: torch.Tensor) -> torch.Tensor:
        balance.shares.copy_(start)
        return balance.balance_loss(each, weights)

    assert torch.autograd.gradcheck(at_the_start, logits)
    gradient = torch.autograd.grad(at_the_start(logits), logits)[0]
    little = 1e-6
    views = (weights[:, None] * logits.softmax(dim=1)).mean(dim=0)
    shares = start + little * (views - views.detach())  # what these views would move, alone
    entropy = (shares * torch.log(3.0 * shares)).sum()
    # sum_k s_k log s_k also has the slope 1 for every class, which moves nothing: p sums to 1
    torch.testing.assert_close(gradient, torch.autograd.grad(entropy, logits)[0] / little, rtol=1e-5, atol=1e-9)


def test_a_sure_view_is_not_asked_to_be_undecided():
    """As the entropy of the few views that weigh most would do: here one view is all there is."""
    logits = torch.zeros(1, 3)
    logits[0, 0] = 2.0
    logits.requires_grad_()
    ClassBalance(3).balance_loss(logits, torch.ones(1)).backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6


def test_prices_make_classes_even_over_what_the_views_stand_for():
    """Twenty views in front of weight 1/4 and four behind of weight 4.75, all of them 0 at first."""
    torch.manual_seed(3)
    logits = torch.randn(24, 3)
    logits[:, 0] += 1.5
    logits.requires_grad_()
    weights = torch.tensor([0.25] * 20 + [4.75] * 4)
    balance = ClassBalance(3)
    optimiser = torch.optim.SGD([logits], lr=0.2)
    for _ in range(3000):
        optimiser.zero_grad()
        balance.balance_loss(logits, weights).backward()
        optimiser.step()
    shares = (weights[:, None] * logits.softmax(dim=1)).mean(dim=0)
    torch.testing.assert_close(shares, torch.full((3,), 1.0 / 3.0), atol=0.02, rtol=0)


def test_a_class_that_is_nowhere_has_a_finite_price():
    balance = ClassBalance(3)
    balance.shares.copy_(torch.tensor([1.0, 0.0, 0.0]))
    logits = torch.zeros(2, 3, requires_grad=True)
    loss = balance.balance_loss(logits, torch.ones(2))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 0] > 0 > logits.grad[0, 1]
