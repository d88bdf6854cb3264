"""A flat picture through the world's centre, seen from another direction: what a target near its pose looks like.

What it is: one affine warp, and a random one. What it is not: no rendering, no occlusion.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ..geometry.rotations import upright_matrix


def random_shift(
    pictures: Float[Tensor, "B 1 H W"], max_shift: int, generator: torch.Generator
) -> Float[Tensor, "B 1 H W"]:
    """Each picture moved by its own whole number of pixels, up to `max_shift` along each axis, zeros moving in.

    Args:
        pictures: any values; black is 0.
        max_shift: pixels, >= 0.
        generator: a CPU generator, advanced by the call.

    Gradients:
        To the pictures.

    Source:
        Differentiable augmentation, Zhao et al. 2020.
    """
    if max_shift == 0:
        return pictures
    count, _, height, width = pictures.shape
    shift = torch.randint(0, 2 * max_shift + 1, (2, count), generator=generator).to(pictures.device)
    padded = nn.functional.pad(pictures[:, 0], [max_shift] * 4).flatten(1)
    stride = width + 2 * max_shift
    row, column = torch.arange(height, device=pictures.device), torch.arange(width, device=pictures.device)
    window = (row[:, None] * stride + column).flatten()
    first = shift[0] * stride + shift[1]
    return padded.gather(1, first[:, None] + window).view_as(pictures)


def seen_as_plate(
    pictures: Float[Tensor, "B 1 H W"], view: Float[Tensor, "B 3 3"], facing: Float[Tensor, "B 3 3"]
) -> Float[Tensor, "B 1 H W"]:
    """A flat picture through the world's centre, facing the eye at rotation `facing`, seen at rotation `view`.

        pixel p of the view shows pixel A^-1 p of the picture,   A = upper left 2x2 of view @ facing^T

    Args:
        pictures: any values; outside them is 0.
        view: x_camera = view @ x_world, less than 90 degrees from `facing`.
        facing: the rotation at which the plate is seen undistorted.
    """
    turned = (view @ facing.mT)[:, :2, :2]
    theta = torch.cat([torch.linalg.inv(turned), turned.new_zeros(len(turned), 2, 1)], dim=2)
    return F.grid_sample(pictures, F.affine_grid(theta, list(pictures.shape), align_corners=False), align_corners=False)


def tilted(pictures: Float[Tensor, "B 1 H W"], degrees: float, generator: Generator) -> Float[Tensor, "B 1 H W"]:
    """Each flat picture as it looks from its own random direction near its normal.

    Azimuth within +-degrees, elevation within half of that, and rolled in the picture's plane by up to a quarter:
    narrowed, flattened, sheared and turned a little, as a digit is that one walks past.

    Args:
        pictures: any values; outside them is 0.
        degrees: 0 to 60.
        generator: a CPU generator, advanced by the call.
    """
    limits = math.radians(degrees) * torch.tensor([1.0, 0.5, 0.25])
    azimuth, elevation, roll = limits[:, None] * (2.0 * torch.rand(3, len(pictures), generator=generator) - 1.0)
    cosine, sine, zero = roll.cos(), roll.sin(), torch.zeros_like(roll)
    rolled = torch.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, zero + 1.0], dim=-1).unflatten(
        -1, (3, 3)
    )
    view = (rolled @ upright_matrix(azimuth, elevation)).to(pictures.device)
    facing = torch.eye(3, device=pictures.device).expand(len(pictures), 3, 3)
    return seen_as_plate(pictures, view, facing)
