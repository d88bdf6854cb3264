"""The dense renderer in plain PyTorch: a page that can be checked by reading, in any float dtype."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..compositing import composite
from .quadrature import ball_quadrature


def render_grid_reference(
    opacity: Float[Tensor, "Z Y X"],
    absorbance: Float[Tensor, "Z Y X"],
    rotation: Float[Tensor, "B 3 3"],
    image_size: int,
    num_samples: int,
) -> Float[Tensor, "B H W"]:
    """See `render_grid`; takes the opacity of one step instead of the attenuation."""
    views = rotation.shape[0]
    camera, share = ball_quadrature(image_size, num_samples, dtype=opacity.dtype, device=opacity.device)
    # x_world = R^T x_camera; as row vectors that is x_camera @ R.
    world = torch.einsum("hwsc,bcx->bhwsx", camera, rotation)
    grid = torch.stack([opacity, absorbance])[None].expand(views, -1, -1, -1, -1)
    if views == 0:  # grid_sample refuses an empty batch
        return (world.sum(dim=(-1, -2)) * grid.sum()).to(opacity.dtype)
    # grid_sample's last axis is (x, y, z) and its input (Z, Y, X): the project's own two conventions.
    sampled = F.grid_sample(grid, world, mode="bilinear", padding_mode="border", align_corners=False)
    return composite(share * sampled[:, 0], sampled[:, 1])
