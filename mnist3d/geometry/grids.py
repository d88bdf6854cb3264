"""Grids of voxels: how a resolution is given, where voxels lie, and what coarser ones hold.

Arithmetic of indices, and the one definition of a mean over voxels. What lies between voxels' centres is
interpolated, see `volumes.resampling`.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

WORLD_EXTENT = 2.0  # a grid fills [-1, 1]^3
MAX_RESOLUTION = 1024  # 1024^3 of two float32 channels is 8 GiB: beyond it is a typing error
SLICES_AT_ONCE = 16  # bounds the memory of a mean: a fine grid is large
OPAQUE = 1e-6  # share of the largest number: more matter is taken as that, which sums and products survive

Numbers = TypeVar("Numbers", Tensor, np.ndarray)


def voxel_places(index: Numbers, count: int | Numbers) -> Numbers:
    """World coordinate (2 index + 1) / count - 1 of the voxels' centres along an axis; a fraction lies between two.

    Args:
        index: 0 is the first voxel.
        count: voxels along the axis.
    """
    return (2.0 * index + 1.0) / count - 1.0


def voxel_centres(count: int) -> Float[Tensor, " N"]:
    """World coordinates of the voxels' centres along an axis, in double precision on the CPU."""
    return voxel_places(torch.arange(count, dtype=torch.float64, device="cpu"), count)


def grid_size(resolution: int | Sequence[int]) -> tuple[int, int, int]:
    """(Z, Y, X) of a resolution.

    Args:
        resolution: voxels along each edge, or along (Z, Y, X); 1 to 1024.

    Raises:
        ValueError: neither one number nor three, or one out of range.
    """
    size = [resolution] * 3 if isinstance(resolution, int) else list(resolution)
    if len(size) != 3 or not all(isinstance(n, int) and 1 <= n <= MAX_RESOLUTION for n in size):
        raise ValueError(f"resolution={resolution}: must be in [1, {MAX_RESOLUTION}], one number or (Z, Y, X)")
    return size[0], size[1], size[2]


def scaled_size(size: Sequence[int], longest: int) -> tuple[int, ...]:
    """The resolution of the same proportions whose longest edge has so many voxels."""
    return tuple(max(1, round(n * longest / max(size))) for n in size)


def shares(voxels: int, parts: int, across: float | None = None) -> Float[Tensor, "parts voxels"]:
    """How much of each of an edge's equal parts every voxel fills; double precision.

    Args:
        voxels: along the axis.
        parts: into which the edge is cut.
        across: how many voxels the edge is long, in whose middle they lie; default their own number, so that they fill
            each part wholly and the shares of a part sum to 1.
    """
    across = float(voxels) if across is None else across
    first = torch.arange(voxels, dtype=torch.float64)
    cuts = torch.arange(parts + 1, dtype=torch.float64) * across / parts - (across - voxels) / 2.0
    overlap = torch.minimum(cuts[1:, None], first + 1.0) - torch.maximum(cuts[:-1, None], first)
    return overlap.clamp_min(0.0) * (parts / across)


@torch.no_grad()
def averaged(grid: Float[Tensor, "2 Z Y X"], weights: Sequence[Float[Tensor, "_ _"]]) -> Float[Tensor, "2 z y x"]:
    """The means of a grid's voxels over larger ones.

    Attenuation is the plain mean, so that no light is lost; absorbance is weighted by attenuation, as it is what
    absorbs that counts: a thin black wall in empty space is not grey. Where nothing absorbs it is the plain mean.

    Args:
        grid: attenuation, absorbance.
        weights: along z, y and x, `shares` of every new voxel in the old ones.
    """
    along_z, along_y, along_x = (share.to(grid) for share in weights)
    largest = OPAQUE * torch.finfo(grid.dtype).max
    means = grid.new_empty(2, len(along_z), len(along_y), len(along_x))
    for k, share in enumerate(along_z):
        total = grid.new_zeros(3, *grid.shape[2:])
        for slices in filter(len, share.nonzero()[:, 0].split(SLICES_AT_ONCE)):  # none where no old voxel reaches
            part = slice(int(slices[0]), int(slices[-1]) + 1)
            attenuation, absorbance = grid[0, part].clamp_max(largest), grid[1, part]
            for channel, values in enumerate((attenuation, attenuation * absorbance, absorbance)):
                total[channel] += torch.tensordot(share[part], values, 1)
        attenuation, absorbed, absorbance = along_y @ total @ along_x.mT
        means[0, k] = attenuation
        means[1, k] = torch.where(attenuation > 0.0, absorbed / attenuation, absorbance).clamp_(0.0, 1.0)
    return means
