"""The renderer of a grid of blocks in plain PyTorch: a page that can be checked by reading, in any float dtype."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..absorption.quadrature import ball_quadrature
from ..compositing import composite
from .layout import BLOCK, sample_blocks


def render_blocks_reference(
    opacity: Float[Tensor, "N 8 8 8"],
    absorbance: Float[Tensor, "N 8 8 8"],
    rotation: Float[Tensor, "B 3 3"],
    slots: Int[Tensor, "bz by bx"],
    resolution: tuple[int, int, int],
    empty_absorbance: float,
    image_size: int,
    num_samples: int,
) -> Float[Tensor, "B H W"]:
    """See `render_blocks`; takes the opacity of one step instead of the attenuation."""
    camera, share = ball_quadrature(image_size, num_samples, dtype=opacity.dtype, device=opacity.device)
    # x_world = R^T x_camera; as row vectors that is x_camera @ R.
    world = torch.einsum("hwsc,bcx->bhwsx", camera, rotation)
    empty = opacity.new_tensor([0.0, empty_absorbance])
    sampled = sample_blocks(torch.stack([opacity, absorbance]), slots, resolution, empty, world)
    return composite(share * sampled[0], sampled[1])


def block_influence_reference(
    opacity: Float[Tensor, "N 8 8 8"],
    absorbance: Float[Tensor, "N 8 8 8"],
    rotation: Float[Tensor, "B 3 3"],
    slots: Int[Tensor, "bz by bx"],
    resolution: tuple[int, int, int],
    empty_absorbance: float,
    image_size: int,
    num_samples: int,
) -> Float[Tensor, " N"]:
    """See `block_influence`; takes the opacity of one step. One view at a time."""
    camera, share = ball_quadrature(image_size, num_samples, dtype=opacity.dtype, device=opacity.device)
    values, empty = torch.stack([opacity, absorbance]), opacity.new_tensor([0.0, empty_absorbance])
    size = camera.new_tensor(resolution[::-1])
    squares = torch.zeros(len(opacity) + 1, dtype=torch.float64, device=opacity.device)  # the last of no block
    for turn in rotation:
        world = camera @ turn
        sampled = sample_blocks(values, slots, resolution, empty, world)
        voxel = torch.minimum((0.5 * (world + 1.0) * size).clamp_min(0.0).floor(), size - 1.0).long()
        x, y, z = (voxel // BLOCK).unbind(dim=-1)
        owner = slots[z, y, x].long()
        shade, colour = share * sampled[0], 1.0 - sampled[1]
        passed = torch.cat([torch.ones_like(share[..., :1]), (1.0 - shade).cumprod(dim=-1)], dim=-1)
        light = behind = torch.zeros_like(share[..., 0])
        # From the back: once a block is passed, its light and what came from behind it are known.
        for k in reversed(range(num_samples)):
            light = light + shade[..., k] * (colour[..., k] - light)
            ends = owner[..., k] != owner[..., k - 1] if k else torch.ones_like(owner[..., 0], dtype=torch.bool)
            change = torch.where(ends, passed[..., k] * (light - behind), 0.0)
            squares.index_add_(0, owner[..., k].flatten() % len(squares), change.double().square().flatten())
            behind = torch.where(ends, light, behind)
    return squares[:-1] / max(1, len(rotation) * image_size**2)
