"""Looking up the nearest real image."""

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
