"""Registration: known small maps are found again, nothing is made worse, nothing moves far."""

import math

import pytest
import torch
import torch.nn.functional as F

from mnist3d.data.registration import blur, registered


def two_strokes() -> torch.Tensor:
    """A soft bar and a dot, 28 x 28: no symmetry hides a turn."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 28), torch.linspace(-1, 1, 28), indexing="ij")
    bar = torch.exp(-((x / 0.12) ** 2) - (y / 0.5) ** 4)
    dot = torch.exp(-(((x - 0.45) / 0.15) ** 2) - ((y + 0.3) / 0.15) ** 2)
    return (bar + dot).clamp(0, 1)[None, None]


def mapped(image: torch.Tensor, entries: list[float]) -> torch.Tensor:
    """The image under identity + entries, as `registered` defines it."""
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
    image = two_strokes()
    view = mapped(image, entries)
    met = registered(image, view, 0.2)
    # measured .0005 to .0014; one step alone leaves .007 to .05
    assert distance(met, view).item() < 0.005 * distance(image, view).item()


def test_a_map_that_makes_it_worse_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    image = two_strokes()
    view = mapped(image, [0, 0, 0.1, 0, 0, 0])
    solve = torch.linalg.solve_ex
    monkeypatch.setattr(torch.linalg, "solve_ex", lambda system, wanted: (-solve(system, wanted)[0], None))
    assert torch.equal(registered(image, view, 0.2), image)


def test_each_image_is_for_itself_also_beside_one_that_is_not_finite() -> None:
    images = two_strokes().repeat(3, 1, 1, 1)
    views = torch.cat([mapped(two_strokes(), [0, 0, shift, 0, 0, 0]) for shift in (0.1, -0.1, 0.05)])
    alone = registered(images[2:], views[2:], 0.2)
    views[1, 0, 3, 3] = torch.nan
    met = registered(images, views, 0.2)
    torch.testing.assert_close(met[2:], alone)
    assert torch.equal(met[1], images[1])


@pytest.mark.parametrize("shape", [(8, 8), (28, 40), (64, 64)])
def test_other_shapes(shape: tuple[int, int]) -> None:
    image = F.interpolate(two_strokes(), size=shape, mode="area")
    view = mapped(image, [0, 0, 0.1, 0, 0, 0])
    # the blur is of 3 x 3 pixels whatever the size, so not all of it is found
    assert distance(registered(image, view, 0.2), view).item() < 0.3 * distance(image, view).item()


def test_a_dim_view_does_not_move_the_image_away() -> None:
    image = two_strokes()
    met = registered(image, 0.7 * image, 0.2)
    light = (met.sum() / image.sum()).item()
    assert 0.7 < light <= 1.0  # a smaller image explains some of the missing light, but not all of it


def test_what_cannot_move_stays() -> None:
    image, blank = two_strokes(), torch.zeros(1, 1, 28, 28)
    assert torch.equal(registered(image, mapped(image, [0, 0, 0.1, 0, 0, 0]), 0.0), image)
    assert torch.equal(registered(blank, image, 0.2), blank)  # no edge says where to
    assert torch.equal(registered(image, image, 0.2), image)
    assert registered(image[:0], image[:0], 0.2).shape == (0, 1, 28, 28)


def test_it_does_not_go_far() -> None:
    image = two_strokes()
    view = mapped(image, [0, 0, 0.2, 0, 0, 0])  # 2.8 pixels
    column = torch.linspace(-1, 1, 28)

    def moved(reach: float) -> float:
        centre = [
            ((p.sum(dim=(1, 2)) * column).sum() / p.sum()).item() for p in (image, registered(image, view, reach))
        ]
        return abs(centre[0] - centre[1])

    assert moved(0.2) > 0.15
    # the shift is cut off at .05, and stretching by a tenth moves the centre of this narrow image less than that
    assert moved(0.05) < 0.1


def test_no_gradient_and_the_views_stay_as_they_are() -> None:
    image, view = two_strokes().requires_grad_(), mapped(two_strokes(), [0, 0, 0.1, 0, 0, 0]).requires_grad_()
    before = view.detach().clone()
    assert not registered(image, view, 0.2).requires_grad
    assert torch.equal(view.detach(), before)
