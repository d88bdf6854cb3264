"""How a grid's resolution is given: one number, or one an axis."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def voxel_centres(count: int) -> Float[Tensor, " N"]:
    """World coordinates of the voxels' centres along an axis, in double precision."""
    return (2.0 * torch.arange(count, dtype=torch.float64) + 1.0) / count - 1.0


MAX_RESOLUTION = 1024  # 1024^3 of two float32 channels is 8 GiB: beyond it is a typing error


def grid_size(resolution: int | Sequence[int]) -> tuple[int, int, int]:
    """(Z, Y, X) of a resolution.

    Args:
        resolution: voxels along each edge, or along (Z, Y, X); 1 to 1024.

    Raises:
        ValueError: neither one number nor three, or one out of range.
    """
    size = [resolution] * 3 if isinstance(resolution, int) else list(resolution)
    if len(size) != 3 or not all(isinstance(n, int) and 1 <= n <= MAX_RESOLUTION for n in size):
        raise ValueError(f"resolution={resolution}: allowed are 1 to {MAX_RESOLUTION}, one number or (Z, Y, X)")
    return size[0], size[1], size[2]
