"""The renderer of a grid of blocks in plain PyTorch: a page that can be checked by reading, in any float dtype."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..absorption.quadrature import ball_quadrature
from ..compositing import composite
from .layout import sample_blocks


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
