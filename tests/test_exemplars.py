"""Looking up the nearest real picture."""

import torch

from mnist3d import exemplars
from mnist3d.exemplars import Exemplars, blur


def pictures(count, seed=0):
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
    images, views = pictures(40), pictures(9, seed=1)
    labels, classes = torch.arange(40) % 3, torch.arange(9) % 3
    expected = brute_force(views, images, labels, classes)
    assert torch.equal(Exemplars(images, labels).nearest(views, classes)[:, 0], expected)
    monkeypatch.setattr(exemplars, "CANDIDATES_AT_ONCE", 4)
    assert torch.equal(Exemplars(images, labels).nearest(views, classes)[:, 0], expected)


def test_without_classes_or_labels_all_pictures_count():
    images, views = pictures(20), pictures(4, seed=1)
    expected = brute_force(views, images, torch.zeros(20), torch.zeros(4))
    assert torch.equal(Exemplars(images, torch.arange(20) % 2).nearest(views)[:, 0], expected)
    assert torch.equal(Exemplars(images, None).nearest(views, None)[:, 0], expected)


def test_a_real_picture_finds_itself_and_an_empty_class_looks_everywhere():
    images = pictures(10)
    labels = torch.tensor([0] * 5 + [2] * 5)
    assert torch.equal(Exemplars(images, labels).nearest(images, labels)[:, 0], images)
    assert torch.equal(Exemplars(images, labels).nearest(images[:2], torch.tensor([1, 7]))[:, 0], images[:2])


def test_a_few_are_the_nearest_in_order_and_a_small_class_repeats_its_nearest(monkeypatch):
    images, views = pictures(23), pictures(5, seed=1)
    labels = torch.tensor([0] * 21 + [1] * 2)
    far = (blur(views)[:, None] - blur(images)[None]).square().sum(dim=(2, 3, 4))
    expected = images[far[:, :21].argsort(dim=1)[:, :3]]
    for at_once in (100, 2):
        monkeypatch.setattr(exemplars, "CANDIDATES_AT_ONCE", at_once)
        found = Exemplars(images, labels).nearest(views, torch.zeros(5, dtype=torch.long), few=3)
        assert torch.equal(found, expected)
        small = Exemplars(images, labels).nearest(views, torch.ones(5, dtype=torch.long), few=4)
        order = 21 + far[:, 21:].argsort(dim=1)
        assert torch.equal(small, images[torch.cat([order, order[:, :1], order[:, :1]], dim=1)])
