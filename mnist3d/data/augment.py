"""A flat image through the world's centre, seen from another direction: what a target near its pose looks like.

One affine warp, and a random one.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ..geometry.on_device import made_once, sent
from ..geometry.rotations import upright_matrix


def random_shift(
    images: Float[Tensor, "B 1 H W"], max_shift: int, generator: torch.Generator
) -> Float[Tensor, "B 1 H W"]:
    """Each image moved by its own whole number of pixels, up to `max_shift` along each axis, zeros moving in.

    Args:
        images: any values; black is 0.
        max_shift: pixels, >= 0.
        generator: a CPU generator, advanced by the call.

    Gradients:
        To the images.

    Source:
        Differentiable augmentation, Zhao et al. 2020.
    """
    if max_shift == 0:
        return images
    starts = random_starts(1, len(images), images.shape[-1], max_shift, generator)
    return shifted(images, sent(starts[0], images), max_shift)


def random_starts(
    draws: int, count: int, width: int, max_shift: int, generator: torch.Generator
) -> Int[Tensor, "draws count"]:
    """Where `shifted` begins, on the CPU; several draws at once, so that they are sent to a device together.

    Args:
        draws: how often.
        count: images of each.
        width: of an image, pixels.
        max_shift: pixels, >= 1.
        generator: a CPU generator, advanced by the call.
    """
    high, place = 2 * max_shift + 1, generator.device
    drawn = [torch.randint(0, high, (2, count), generator=generator, device=place) for _ in range(draws)]
    return torch.stack([down * (width + 2 * max_shift) + across for down, across in drawn])


def shifted(images: Float[Tensor, "B 1 H W"], starts: Int[Tensor, " B"], max_shift: int) -> Float[Tensor, "B 1 H W"]:
    """A part of each image's size out of the image in a black frame of `max_shift` pixels.

    Args:
        images: any values; black is 0.
        starts: the pixel of the framed image, numbered row by row, at which each one's part begins; of `random_starts`.
        max_shift: pixels, >= 1.

    Gradients:
        To the images.
    """
    height, width = images.shape[2:]
    window = _window(height, width, width + 2 * max_shift, images.device)
    return F.pad(images, [max_shift] * 4).flatten(1).gather(1, starts[:, None] + window).view_as(images)


@made_once
def _window(height: int, width: int, stride: int, device: torch.device) -> Int[Tensor, " pixels"]:
    """Which pixels of a larger image, numbered row by row, an image in its first corner covers."""
    row, column = torch.arange(height, device=device), torch.arange(width, device=device)
    return (row[:, None] * stride + column).flatten()


def seen_as_plane(
    images: Float[Tensor, "B 1 H W"], view: Float[Tensor, "B 3 3"], facing: Float[Tensor, "B 3 3"]
) -> Float[Tensor, "B 1 H W"]:
    """A flat image through the world's centre, facing the eye at rotation `facing`, seen at rotation `view`.

        pixel p of the view shows pixel A^-1 p of the image,   A = upper left 2x2 of view @ facing^T

    Args:
        images: any values; outside them is 0.
        view: x_camera = view @ x_world, less than 90 degrees from `facing`; on the CPU.
        facing: the rotation at which the image is seen undistorted; on the CPU.
    """
    turned = (view @ facing.mT)[:, :2, :2].to(images.dtype)
    theta = sent(torch.cat([torch.linalg.inv(turned), turned.new_zeros(len(turned), 2, 1)], dim=2), images)
    return F.grid_sample(images, F.affine_grid(theta, list(images.shape), align_corners=False), align_corners=False)


def tilted(images: Float[Tensor, "B 1 H W"], degrees: float, generator: Generator) -> Float[Tensor, "B 1 H W"]:
    """Each flat image as it looks from its own random direction near its normal.

    Azimuth within +-degrees, elevation within half of that, and rolled in the image's plane by up to a quarter:
    narrowed, flattened, sheared and turned a little, as a digit is that one walks past.

    Args:
        images: any values; outside them is 0.
        degrees: 0 to 60.
        generator: a CPU generator, advanced by the call.
    """
    chance = torch.rand(3, len(images), generator=generator, device=generator.device)
    limits = math.radians(degrees) * chance.new_tensor([1.0, 0.5, 0.25])
    azimuth, elevation, roll = limits[:, None] * (2.0 * chance - 1.0)
    cosine, sine, zero = roll.cos(), roll.sin(), torch.zeros_like(roll)
    rolled = torch.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, zero + 1.0], dim=-1).unflatten(
        -1, (3, 3)
    )
    view = (rolled @ upright_matrix(azimuth, elevation)).to(images.dtype)
    facing = torch.eye(3, dtype=images.dtype, device=view.device).expand(len(images), 3, 3)
    return seen_as_plane(images, view, facing)
