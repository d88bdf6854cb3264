"""The dense renderer in plain PyTorch: a page that can be checked by reading, in any float dtype."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..compositing import composite
from .quadrature import ball_quadrature
from .sampling import sample_grid


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
    grid = torch.stack([opacity, absorbance])
    if views == 0:  # grid_sample refuses an empty batch
        return (world.sum(dim=(-1, -2)) * grid.sum()).to(opacity.dtype)
    sampled = sample_grid(grid, world)
    return composite(share * sampled[:, 0], sampled[:, 1])
