"""Looking up the nearest real image."""

import pytest
import torch

from mnist3d.data import nearest as exemplars
from mnist3d.data.nearest import Exemplars
from mnist3d.data.registration import blur


def random_images(count, seed=0):
    return torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(seed))


def brute_force(views, images, labels, classes):
    """The definition, one pair at a time."""
    chosen = []
    for view, k in zip(blur(views), classes.tolist(), strict=True):
        pairs = [
            ((view - blur(image[None])[0]).square().sum().item(), i) for i, image in enumerate(images) if labels[i] == k
        ]
        chosen.append(min(pairs)[1])
    return images[chosen]


def test_nearest_within_the_class_against_brute_force(monkeypatch):
    images, views = random_images(40), random_images(9, seed=1)
    labels, classes = torch.arange(40) % 3, torch.arange(9) % 3
    expected = brute_force(views, images, labels, classes)
    assert torch.equal(Exemplars(images, labels).nearest(views, classes), expected)
    monkeypatch.setattr(exemplars, "CANDIDATES_AT_ONCE", 4)
    assert torch.equal(Exemplars(images, labels).nearest(views, classes), expected)


def test_without_classes_or_labels_all_images_count():
    images, views = random_images(20), random_images(4, seed=1)
    expected = brute_force(views, images, torch.zeros(20), torch.zeros(4))
    assert torch.equal(Exemplars(images, torch.arange(20) % 2).nearest(views), expected)
    assert torch.equal(Exemplars(images, None).nearest(views, None), expected)


def test_a_real_image_finds_itself_and_an_empty_class_looks_everywhere():
    images = random_images(10)
    labels = torch.tensor([0] * 5 + [2] * 5)
    assert torch.equal(Exemplars(images, labels).nearest(images, labels), images)
    assert torch.equal(Exemplars(images, labels).nearest(images[:2], torch.tensor([1, 7])), images[:2])


def found_at_once(held: Exemplars, views: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """By the one product that a GPU takes; `nearest` makes one for each class on a CPU."""
    return held.images[held.order[held._within_all(blur(views).flatten(1), classes)]]


@pytest.mark.parametrize("at_once", [4, 16384])
def test_one_product_with_all_images_finds_what_one_for_each_class_does(monkeypatch, at_once):
    monkeypatch.setattr(exemplars, "CANDIDATES_AT_ONCE", at_once)
    images, views = random_images(40), random_images(12, seed=1)
    labels = torch.arange(40) % 3 + (torch.arange(40) % 3 == 2).long()  # 0, 1 and 3: none is a 2
    held, classes = Exemplars(images, labels), torch.tensor([0, 1, 3] * 4)
    expected = brute_force(views, images, labels, classes)
    assert torch.equal(found_at_once(held, views, classes), expected)
    assert torch.equal(held.nearest(views, classes), expected)
    everywhere = brute_force(views, images, torch.zeros(40), torch.zeros(12))
    for unknown in (2, 4, 9):
        classes[:] = unknown
        assert torch.equal(found_at_once(held, views, classes), everywhere)
        assert torch.equal(held.nearest(views, classes), everywhere)


@pytest.mark.parametrize("at_once", [4, 16384])
def test_of_several_nearest_images_the_first_is_taken(monkeypatch, at_once):
    monkeypatch.setattr(exemplars, "CANDIDATES_AT_ONCE", at_once)
    images = random_images(3).repeat(4, 1, 1, 1)
    labels = torch.tensor([0, 0, 0, 1, 1, 1] * 2)
    held, classes = Exemplars(images, labels), torch.tensor([0, 0, 0, 1, 1, 1])
    query = blur(images[:6]).flatten(1)
    first = torch.tensor([0, 1, 2, 3, 4, 5])  # and not 6 to 11, which are the same
    for place in (held._within_all(query, classes), held._within_each(query, classes)):
        assert torch.equal(held.order[place], first)
