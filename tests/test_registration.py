"""Registration: known small maps are found again, nothing is made worse, nothing moves far."""

import math

import pytest
import torch
import torch.nn.functional as F

from mnist3d.exemplars import blur
from mnist3d.registration import registered


def picture() -> torch.Tensor:
    """A soft bar and a dot, 28 x 28: no symmetry hides a turn."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 28), torch.linspace(-1, 1, 28), indexing="ij")
    bar = torch.exp(-((x / 0.12) ** 2) - (y / 0.5) ** 4)
    dot = torch.exp(-(((x - 0.45) / 0.15) ** 2) - ((y + 0.3) / 0.15) ** 2)
    return (bar + dot).clamp(0, 1)[None, None]


def mapped(image: torch.Tensor, entries: list[float]) -> torch.Tensor:
    """The picture under identity + entries, as `registered` defines it."""
    theta = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]) + torch.tensor(entries).view(2, 3)
    grid = F.affine_grid(theta[None], list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, align_corners=False)


def distance(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return (blur(one) - blur(other)).square().sum(dim=(1, 2, 3))


@pytest.mark.parametrize(
    "entries",
    [
        [0, 0, 0.1, 0, 0, 0],  # 1.4 pixels to the left
        [0, 0, 0, 0, 0, -0.08],
        [0.1, 0, 0, 0, -0.1, 0],  # narrower and taller
        [math.cos(0.15) - 1, -math.sin(0.15), 0, math.sin(0.15), math.cos(0.15) - 1, 0],  # turned by 9 degrees
        [0, 0.15, 0, 0, 0, 0],  # sheared
    ],
)
def test_a_small_map_is_found_again(entries: list[float]) -> None:
    image = picture()
    view = mapped(image, entries)
    met = registered(image, view, 0.2)
    assert distance(met, view).item() < 0.1 * distance(image, view).item()


def test_it_is_never_further_than_it_was_and_each_picture_is_for_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    views = torch.rand(16, 1, 28, 28, generator=generator)
    pictures = torch.cat([picture(), picture().flip(3)]).repeat(8, 1, 1, 1)
    met = registered(pictures, views, 0.2)
    assert (distance(met, views) <= distance(pictures, views)).all()
    torch.testing.assert_close(met[3:4], registered(pictures[3:4], views[3:4], 0.2))


def test_what_cannot_move_stays() -> None:
    image, blank = picture(), torch.zeros(1, 1, 28, 28)
    assert torch.equal(registered(image, mapped(image, [0, 0, 0.1, 0, 0, 0]), 0.0), image)
    assert torch.equal(registered(blank, image, 0.2), blank)  # no edge says where to
    assert torch.equal(registered(image, image, 0.2), image)
    assert registered(image[:0], image[:0], 0.2).shape == (0, 1, 28, 28)


def test_it_does_not_go_far() -> None:
    image = picture()
    far = mapped(image, [0, 0, 0.8, 0, 0, 0])  # 11 pixels
    met = registered(image, far, 0.1)
    column = torch.linspace(-1, 1, 28)
    centre = [((p.sum(dim=(1, 2)) * column).sum() / p.sum()).item() for p in (image, met)]
    # the shift's prior has half the spread, and nothing moves further than twice that; the rest are 10 % of stretch
    assert abs(centre[0] - centre[1]) < 0.1 + 0.2 * 1.0


def test_no_gradient_and_the_views_stay_as_they_are() -> None:
    image, view = picture().requires_grad_(), mapped(picture(), [0, 0, 0.1, 0, 0, 0]).requires_grad_()
    before = view.detach().clone()
    assert not registered(image, view, 0.2).requires_grad
    assert torch.equal(view.detach(), before)
