"""The nearest-image loss: closed forms of the loss, of its weights and of tilted images."""

import math

import pytest
import torch

from mnist3d.data.augment import tilted
from mnist3d.training.objectives.nearest_image import MOST_EXEMPLARS, NearestImage, _pinball


class NearestDifference(NearestImage):
    """With the plain absolute difference, where a test does not ask for more; called with views and logits."""

    def __init__(self, images, labels, num_classes, *, focus=0.0, quantile=0.5, registration=0.0, tilt=0.0) -> None:
        super().__init__(
            images, labels, num_classes, focus=focus, quantile=quantile, registration=registration, tilt=tilt
        )

    def forward(self, views: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        return self.difference(views, logits)


def labelled_images() -> tuple[torch.Tensor, torch.Tensor]:
    """Class 0: a bright left half; class 1: a bright upper half."""
    images = torch.zeros(2, 1, 8, 8)
    images[0, ..., :4] = 1.0
    images[1, ..., :4, :] = 1.0
    return images, torch.tensor([0, 1])


def test_without_focus_it_is_the_mean_difference() -> None:
    images, labels = labelled_images()
    nearest = NearestDifference(images, labels, 2)
    views = images * torch.tensor([0.5, 0.75])[:, None, None, None]
    # half of the pixels are off by .5, or by .25
    assert nearest(views, torch.eye(2)).item() == pytest.approx((0.25 + 0.125) / 2)
    # read as the other class: a quarter of the pixels is 0 where 1 is asked, one .5 off, one .5 for 0
    assert nearest(views[:1], torch.eye(2)[1:]).item() == pytest.approx(0.25 * (1.0 + 0.5 + 0.5))


def test_the_class_that_is_behind_weighs_more() -> None:
    images, labels = labelled_images()
    nearest = NearestDifference(images, labels, 2, focus=2.0)
    views = (images * torch.tensor([0.5, 1.0])[:, None, None, None]).requires_grad_()
    for _ in range(600):
        nearest(views, torch.eye(2))
    loss = nearest(views, torch.eye(2))
    # class 0 is off by half of its brightness, class 1 not at all: the means are (.5, 0), the weights (2, 0)^2
    torch.testing.assert_close(nearest.weights.gaps, torch.tensor([0.5, 0.0]), atol=1e-4, rtol=0)
    assert loss.item() == pytest.approx((4.0 * 0.25 + 0.0) / 2, rel=1e-3)
    loss.backward()
    assert views.grad is not None
    # the weight is a constant: d/dview = weight * sign / (pixels * views)
    assert views.grad[0, 0, 0, 0].item() == pytest.approx(-4.0 / (64 * 2), rel=1e-3)


def test_a_larger_quantile_counts_missing_light_more_and_stray_light_less() -> None:
    images = torch.full((1, 1, 8, 8), 0.5)
    losses = {}
    for quantile in (0.5, 0.75):
        nearest = NearestDifference(images, None, 0, quantile=quantile)
        losses[quantile] = [nearest(torch.full((1, 1, 8, 8), level), torch.zeros(1, 0)).item() for level in (0.3, 0.7)]
    assert losses[0.5] == pytest.approx([0.2, 0.2])  # the absolute difference
    assert losses[0.75] == pytest.approx([0.3, 0.1])


def test_registered_images_ask_less_of_a_view_that_is_a_digit_elsewhere() -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 28), torch.linspace(-1, 1, 28), indexing="ij")
    bar = torch.exp(-((x / 0.2) ** 2) - (y / 0.5) ** 4)[None, None]
    moved = bar.roll(1, dims=3)
    losses = [NearestDifference(bar, None, 0, registration=far)(moved, torch.zeros(1, 0)).item() for far in (0.0, 0.2)]
    assert losses[1] < 0.2 * losses[0]


def test_classes_that_are_not_seen_keep_their_figure() -> None:
    images, labels = labelled_images()
    nearest = NearestDifference(images, labels, 3, focus=1.0)
    nearest(images[:1], torch.tensor([[9.0, 0.0, 0.0]]))
    assert nearest.weights.gaps[0] == pytest.approx(0.98)
    assert nearest.weights.gaps[1:].tolist() == [1.0, 1.0]


def test_its_state_is_the_running_means() -> None:
    images, labels = labelled_images()
    nearest, other = (NearestDifference(images, labels, 2, focus=1.0) for _ in range(2))
    nearest(images * 0.5, torch.eye(2))
    assert list(nearest.state_dict()) == ["weights.gaps"]
    other.load_state_dict(nearest.state_dict())
    assert nearest(images * 0.3, torch.eye(2)).item() == other(images * 0.3, torch.eye(2)).item()


def test_without_labels_every_image_is_a_candidate() -> None:
    images, _ = labelled_images()
    nearest = NearestDifference(images, None, 0, focus=4.0)
    assert nearest(images, torch.zeros(2, 0)).item() == 0.0


def test_tilted_exemplars_are_found_and_few() -> None:
    images, labels = labelled_images()
    turned = tilted(images, 45.0, torch.Generator().manual_seed(0))
    nearest = NearestDifference(images, labels, 2, tilt=45.0)
    assert len(nearest.exemplars.images) == 6
    assert nearest(turned, torch.eye(2)).item() == 0.0
    assert NearestDifference(images, labels, 2)(turned, torch.eye(2)).item() > 0.01
    many = NearestDifference(torch.rand(MOST_EXEMPLARS + 1, 1, 2, 2), None, 0, tilt=45.0)
    assert len(many.exemplars.images) == MOST_EXEMPLARS + 1


def test_few_but_large_images_are_not_tilted(monkeypatch) -> None:
    images = torch.rand(6, 1, 10, 10)
    for pixels, expected in ((6 * 3 * 100, 18), (6 * 3 * 100 - 1, 12), (6 * 2 * 100 - 1, 6), (100, 6)):
        monkeypatch.setattr("mnist3d.training.objectives.nearest_image.MOST_PIXELS", pixels)
        assert len(NearestDifference(images, None, 0, tilt=20.0).exemplars.images) == expected


def test_tilting_in_parts_changes_neither_labels_nor_number(monkeypatch) -> None:
    images, labels = labelled_images()
    monkeypatch.setattr("mnist3d.training.objectives.nearest_image.TILTED_AT_ONCE", 1)
    nearest = NearestDifference(images, labels, 2, tilt=10.0)
    assert nearest.exemplars.labels.tolist() == [0, 1] * 3
    for image, label in zip(nearest.exemplars.images, nearest.exemplars.labels, strict=True):
        nearest = (image - images).abs().sum(dim=(1, 2, 3)).argmin()
        assert nearest == label


def test_a_tilt_of_nothing_changes_nothing() -> None:
    images = torch.rand(3, 1, 9, 9)
    torch.testing.assert_close(tilted(images, 0.0, torch.Generator()), images, atol=1e-5, rtol=0)


def test_a_tilt_only_narrows_and_turns() -> None:
    disc = (torch.linspace(-1, 1, 65)[:, None].square() + torch.linspace(-1, 1, 65).square() < 0.25).float()[None, None]
    turned = tilted(disc.expand(200, 1, 65, 65), 60.0, torch.Generator().manual_seed(0))
    area = turned.mean(dim=(1, 2, 3)) / disc.mean()
    # a disc seen off its normal is an ellipse of area cos(angle between the normals)
    assert area.max() < 1.02
    assert area.min() > math.cos(math.radians(60)) * math.cos(math.radians(30)) - 0.02
    assert area.min() < 0.6
    ys, xs = torch.meshgrid(torch.linspace(-1, 1, 65), torch.linspace(-1, 1, 65), indexing="ij")
    assert (turned * (xs.square() + ys.square() > 0.3)).sum() < 1.0  # nothing grows
    assert len({round(value, 4) for value in area.tolist()}) > 100  # each has its own direction


@pytest.mark.parametrize("quantile", [0.5, 0.58, 0.9])
def test_the_pinball_is_the_larger_of_two_lines_with_the_mean_of_their_slopes_between(quantile: float) -> None:
    off = torch.tensor([-2.0, -0.3, -0.0, 0.0, 1e-30, 0.7], dtype=torch.float64, requires_grad=True)
    found = _pinball(off, quantile)
    torch.testing.assert_close(found, 2.0 * torch.maximum(quantile * off, (quantile - 1.0) * off))
    (slopes,) = torch.autograd.grad(found.sum(), off)
    middle = 2.0 * quantile - 1.0  # as `torch.maximum` divides a gradient between equals
    expected = [2.0 * quantile - 2.0] * 2 + [middle] * 2 + [2.0 * quantile] * 2
    torch.testing.assert_close(slopes, torch.tensor(expected, dtype=torch.float64))
