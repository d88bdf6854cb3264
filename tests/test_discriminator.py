"""The discriminator and the shift in front of it."""

import pytest
import torch

from mnist3d.data.augment import random_shift
from mnist3d.training.discriminator import Discriminator, DiscriminatorOptions


@pytest.mark.parametrize("size", [8, 28, 33, 64])
def test_any_image_size_and_no_images(size):
    network = Discriminator(size, num_classes=7)
    for count in (3, 0):
        score, logits = network(torch.zeros(count, 1, size, size))
        assert score.shape == (count,)
        assert logits.shape == (count, 7)


def test_without_labels_there_is_no_class_head():
    network = Discriminator(num_classes=0)
    score, logits = network(torch.zeros(2, 1, 28, 28))
    assert score.shape == (2,)
    assert logits.shape == (2, 0)
    assert network.classes is None


def test_images_do_not_see_each_other():
    torch.manual_seed(0)
    network = Discriminator()
    images = torch.rand(4, 1, 28, 28)
    together, _ = network(images)
    alone = torch.cat([network(image[None])[0] for image in images])
    assert torch.allclose(together, alone, atol=1e-5)  # fp32 sums in another order


def test_too_small_images_and_too_many_halvings():
    with pytest.raises(ValueError, match="8 pixels"):
        Discriminator(4)
    with pytest.raises(ValueError, match="too many"):
        Discriminator(8, options=DiscriminatorOptions(channels=[4] * 6))
    with pytest.raises(ValueError, match=r"discriminator\.channels"):
        DiscriminatorOptions(channels=[])
    with pytest.raises(ValueError, match=r"discriminator\.features"):
        DiscriminatorOptions(features=0)


def test_shift_moves_whole_images_by_whole_pixels():
    images = torch.zeros(200, 1, 9, 9)
    images[:, 0, 4, 4] = 1.0
    moved = random_shift(images, 2, torch.Generator().manual_seed(0))
    assert torch.equal(moved.sum(dim=(1, 2, 3)), torch.ones(200))
    places = {tuple(place[2:]) for place in moved.nonzero().tolist()}
    assert places == {(row, column) for row in range(2, 7) for column in range(2, 7)}


def test_shift_brings_in_zeros_and_gradients_pass():
    images = torch.ones(50, 1, 6, 6, requires_grad=True)
    moved = random_shift(images, 2, torch.Generator().manual_seed(0))
    assert moved.min() == 0
    moved.sum().backward()
    assert images.grad is not None
    assert images.grad.sum() == moved.sum()
    assert torch.equal(random_shift(images, 0, torch.Generator()), images)
