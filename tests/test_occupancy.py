"""Where a field is taken for empty while it is fitted, and what a view makes of it."""

import pytest
import torch
from torch import Generator

from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.volumes.base import Volume
from mnist3d.volumes.occupancy import DECAY, EVERY, FIRST, MOVING_CELLS, MOVING_EMPTY_BELOW, MovingOccupancy, Occupancy

TURN = torch.eye(3)[None]


class Ball(Volume):
    """Of attenuation 5 in a radius of .3, nothing elsewhere; `scale` is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(5.0))
        self.middle = torch.tensor([0.4, -0.2, 0.1])

    def forward(self, points):
        inside = ((points - self.middle).square().sum(-1) < 0.3**2).to(points)
        return self.scale * inside, 0.5 * inside


def points_in(ball: Ball) -> torch.Tensor:
    """Some of its own, up to its edge."""
    directions = torch.nn.functional.normalize(torch.randn(500, 3, generator=Generator().manual_seed(1)), dim=-1)
    return ball.middle + 0.299 * directions * torch.linspace(0.0, 1.0, 500)[:, None]


def test_nothing_is_skipped_before_it_is_known():
    occupancy, generator = MovingOccupancy(), Generator().manual_seed(0)
    assert all(occupancy.at_step(step, Ball(), generator) is None for step in range(FIRST))


def test_what_is_filled_is_asked_and_what_comes_or_goes_is_noticed():
    ball, occupancy, generator = Ball(), MovingOccupancy(), Generator().manual_seed(0)
    found = occupancy.at_step(FIRST, ball, generator)
    assert found is not None
    assert bool(found(points_in(ball)).all())
    # the ball and two cells around it, one by where the points fell and one as a neighbour
    share = float(found.cells.float().mean())
    reach = 0.3 + 2.0 * 3.0**0.5 * 2.0 / MOVING_CELLS
    assert (4.0 / 3.0 * torch.pi * 0.3**3) / 8.0 <= share <= (4.0 / 3.0 * torch.pi * reach**3) / 8.0
    assert occupancy.at_step(FIRST + 1, ball, generator) is found
    before = points_in(ball)
    ball.middle = torch.tensor([-0.4, 0.3, 0.0])
    found = occupancy.at_step(FIRST + EVERY, ball, generator)
    assert found is not None
    assert bool(found(points_in(ball)).all())
    assert bool(found(before).all())  # of late
    refreshes = 1
    while 5.0 * DECAY**refreshes >= MOVING_EMPTY_BELOW:
        refreshes += 1
        found = occupancy.at_step(FIRST + EVERY * refreshes, ball, generator)
    assert found is not None
    assert not bool(found(before[:100]).any())
    assert bool(found(points_in(ball)).all())


def test_what_counts_as_empty_goes_by_the_depth_of_what_is_fitted():
    faint = Ball()
    with torch.no_grad():
        faint.scale.fill_(0.005)
    found = MovingOccupancy(depth=0.01).at_step(FIRST, faint, Generator().manual_seed(0))
    assert found is not None
    assert bool(found(points_in(faint)).all())
    assert MovingOccupancy(depth=1.0).at_step(FIRST, faint, Generator().manual_seed(0)) is None
    assert MovingOccupancy(first=100).at_step(99, Ball(), Generator().manual_seed(0)) is None
    assert MovingOccupancy(first=100).at_step(100, Ball(), Generator().manual_seed(0)) is not None


def test_a_field_of_nothing_is_asked_everywhere_and_one_that_is_broken_too():
    ball, generator = Ball(), Generator().manual_seed(0)
    with torch.no_grad():
        ball.scale.zero_()
    assert MovingOccupancy().at_step(FIRST, ball, generator) is None
    with torch.no_grad():
        ball.scale.fill_(torch.nan)
    found = MovingOccupancy().at_step(FIRST, ball, generator)
    assert found is not None
    assert bool(found(torch.zeros(1, 3)).all())


def test_views_and_gradients_are_the_same_where_only_what_is_empty_is_skipped():
    ball, renderer = Ball(), AbsorptionRenderer(12)
    found = MovingOccupancy().at_step(FIRST, ball, Generator().manual_seed(0))
    assert found is not None
    answers = []
    for occupancy in (None, found):
        view = renderer(ball, TURN, generator=Generator().manual_seed(2), occupancy=occupancy)
        answers.append((view, *torch.autograd.grad(view.square().sum(), [ball.scale])))
    for whole, skipped in zip(*answers, strict=True):
        torch.testing.assert_close(skipped, whole)
    assert float(answers[0][0].detach().max()) > 0.3


@pytest.mark.parametrize("learns", [True, False])
def test_where_all_of_a_view_would_be_skipped_a_gradient_still_has_a_way(learns: bool):
    nothing = Occupancy(torch.zeros(4, 4, 4, dtype=torch.bool), 0)
    ball, renderer = Ball(), AbsorptionRenderer(6)
    with torch.set_grad_enabled(learns):
        view = renderer(ball, TURN, occupancy=nothing)
    assert view.requires_grad == learns
    assert (float(view.detach().max()) > 0.0) == learns
