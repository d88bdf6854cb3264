"""Where the pixels of an image lie."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..geometry.grids import voxel_places

RING = 1.05  # beyond this radius no ray meets the ball


def radius_of(size: int) -> Float[Tensor, "N N"]:
    """Distance of each pixel's centre from the middle of the image, world units."""
    axis = voxel_places(torch.arange(size, dtype=torch.float32), size)
    return (axis[:, None].square() + axis.square()).sqrt()


def disc(size: int) -> Bool[Tensor, "N N"]:
    """The pixels whose rays meet the unit ball."""
    return radius_of(size) < 1.0
