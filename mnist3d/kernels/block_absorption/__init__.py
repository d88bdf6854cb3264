"""Rendering a grid of which only some blocks are there: what is empty is neither stored nor read.

A pure function of (blocks, rotation, image size, samples a ray), with one contract for all implementations. Of the
whole grid it is `kernels.absorption.render_grid` with quadrature="trilinear".
"""

import torch
from jaxtyping import Float
from torch import Tensor

from .implementations import IMPLEMENTATIONS, implementation, influence_implementation
from .layout import BLOCK, Blocks, blocks_along, cut, sample_blocks, whole


def render_blocks(
    blocks: Blocks,
    rotation: Float[Tensor, "B 3 3"],
    image_size: int,
    num_samples: int,
    impl: str = "auto",
    at_once: int | None = None,
) -> Float[Tensor, "B H W"]:
    """Orthographic images of a grid of blocks that fills [-1, 1]^3 and is cut to the unit ball.

        render_blocks(blocks, ...) = render_grid(*blocks.dense(), ...)

    with the memory of the blocks alone, and a time that falls with the samples that lie in none.

    Args:
        blocks: the grid; float32 or float64.
        rotation: x_camera = rotation @ x_world; of the blocks' precision.
        image_size: pixels along each edge of the square image of [-1, 1]^2.
        num_samples: steps on the ball's diameter.
        impl: "reference" (plain PyTorch, any device and float dtype), "numba" (CPU, torch.get_num_threads() threads) or
            "auto": on the CPU numba, once it has proven to agree with the reference; else the reference.
        at_once: views of which the reference keeps its samples at a time, >= 1; those of other views it computes again
            when a gradient is asked for. None: of all. numba keeps none.

    Returns:
        (B, H, W) with H = W = image_size, values in [0, 1] up to rounding.

    Raises:
        ValueError: unknown `impl`, shapes that do not fit, or tensors that the chosen `impl` cannot take.
        ImportError: impl="numba" where it cannot be imported; "auto" takes the reference there.

    Gradients:
        To raw and rotation. Only impl="reference" can be differentiated twice.

    Source:
        Max, "Optical models for direct volume rendering" (1995), eq. 9; blocks as in Museth, "VDB: High-resolution
        sparse volumes with dynamic topology" (2013).
    """
    _check(blocks, rotation, image_size, num_samples, at_once)
    if len(rotation) == 0:  # nothing to compare two implementations on
        nothing = 0.0 * (blocks.raw.sum() + rotation.sum())
        return rotation.new_zeros(0, image_size, image_size) + nothing
    render = implementation(impl, (blocks.raw, rotation), at_once)
    grid = blocks.slots, blocks.resolution, blocks.empty_absorbance
    return render(blocks.raw, 2.0 / num_samples / blocks.voxel_step, rotation, *grid, image_size, num_samples)


@torch.no_grad()
def block_influence(
    blocks: Blocks,
    rotation: Float[Tensor, "B 3 3"],
    image_size: int,
    num_samples: int,
    impl: str = "auto",
) -> Float[Tensor, " N"]:
    """By how much the samples in each block alone change the views.

        influence[n] = mean over all pixels of (view - view without the samples of block n)^2

    A sample belongs to the block of its nearest voxel, though it is interpolated between those of other blocks too: it
    counts for this one alone, and for none where this one is not there. So an empty block beside matter has influence,
    and a block whose matter lies at its face less than the views would change by without its voxels. On a ray a block
    is one stretch, of transmittance t, that gives light L by itself. Without it the pixel changes by T (L - (1 - t) R),
    where T passes what is before it, and R is the light from behind it: nothing where it is hidden, where it is as
    black as what is behind, or hides its like.

    Args:
        blocks: the grid; of those that `slots` does not name the influence is 0.
        rotation, image_size, num_samples: as of `render_blocks`.
        impl: likewise; "auto" compares the two once more, by what this returns.

    Returns:
        (N,), float64, of the blocks' device.

    Raises:
        ValueError, ImportError: as `render_blocks`.

    Gradients:
        None.

    Source:
        As `render_blocks`. Fridovich-Keil et al., "Plenoxels" (2022), section 3.2, prunes by the largest share of a
        ray's light that a voxel takes; that of a block that could be left out all the same is large too.
    """
    _check(blocks, rotation, image_size, num_samples, None)
    find = influence_implementation(impl, (blocks.raw, rotation))
    grid = blocks.slots, blocks.resolution, blocks.empty_absorbance
    return find(blocks.raw, 2.0 / num_samples / blocks.voxel_step, rotation, *grid, image_size, num_samples)


def _check(blocks: Blocks, rotation: Tensor, image_size: int, num_samples: int, at_once: int | None) -> None:
    if blocks.raw.ndim != 5 or blocks.raw.shape[0] != 2 or blocks.raw.shape[2:] != (BLOCK,) * 3:
        raise ValueError(f"raw is {tuple(blocks.raw.shape)}: it must be (2, N, 8, 8, 8)")
    count = blocks.raw.shape[1]
    slots, expected = blocks.slots, blocks_along(blocks.resolution)
    if tuple(slots.shape) != expected or slots.is_floating_point():
        raise ValueError(f"slots is {tuple(slots.shape)} {slots.dtype}: it must be {expected}, whole numbers")
    if int(slots.min()) < -1 or int(slots.max()) >= count:
        raise ValueError(f"slots lies in [{int(slots.min())}, {int(slots.max())}]: it must be in [-1, {count - 1}]")
    if rotation.ndim != 3 or rotation.shape[1:] != (3, 3):
        raise ValueError(f"rotation is {tuple(rotation.shape)}: it must be (B, 3, 3); add [None] to a single matrix")
    for name, value in (("image_size", image_size), ("num_samples", num_samples), ("at_once", at_once)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: it must be at least 1")


__all__ = [
    "BLOCK",
    "IMPLEMENTATIONS",
    "Blocks",
    "block_influence",
    "blocks_along",
    "cut",
    "render_blocks",
    "sample_blocks",
    "whole",
]
