"""Any volume as two arrays of voxels, and where in space these voxels lie.

What it is: a volume sampled at voxel centres, in chunks. What it is not: no file format. Arrays stay in the world's
axes, (Z, Y, X) with y down; `upright` turns them for tools whose up is +z.
"""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from ..errors import ExportError
from ..formats.voxel_array import Voxels, check_values
from ..volumes.base import Field
from ..volumes.resampling import resampled

FIELD_RESOLUTION = 128  # voxels along each edge for a volume that is no grid and so has none of its own
MAX_RESOLUTION = 1024  # 8 GiB of two float32 channels
POINTS_AT_ONCE = 2**18


def as_voxels(volume: Field | ArrayLike, resolution: int | None = None, voxel_size_mm: float | None = None) -> Voxels:
    """What a writer needs, of a volume or of an array (2, Z, Y, X) in the world's axes.

    Raises:
        ExportError: a resolution or a voxel size out of range, an array of another shape or with values out of range.
    """
    if voxel_size_mm is not None and not 0.0 < voxel_size_mm <= 1e6:
        raise ExportError(f"voxel_size_mm={voxel_size_mm}: allowed are millimetres above 0, at most 1e6")
    if isinstance(volume, Field):
        return Voxels(voxel_arrays(volume, resolution), voxel_size_mm)
    if resolution is not None:
        raise ExportError("resolution is for volumes; an array is written as it is")
    values = np.asarray(volume, dtype=np.float32)
    if values.ndim != 4 or values.shape[0] != 2 or 0 in values.shape:
        raise ExportError(f"array has shape {values.shape}: it must be (2, Z, Y, X), none of them 0")
    check_values(values)
    return Voxels(values, voxel_size_mm)


@torch.no_grad()
def voxel_arrays(volume: Field, resolution: int | None = None) -> Float[np.ndarray, "2 Z Y X"]:
    """Attenuation per world unit and absorbance at voxel centres, float32, in the world's axes.

    Voxels that no ray can meet (the renderer sees the unit ball alone) hold zero attenuation: nothing was sculpted
    there, and other tools would show it.

    Args:
        volume: any backend.
        resolution: voxels along the longest edge, 1 to 1024; default a grid's own, 128 for a field.

    Raises:
        ExportError: a resolution out of range, or values out of theirs.
    """
    if resolution is not None and not 1 <= resolution <= MAX_RESOLUTION:
        raise ExportError(f"resolution={resolution}: allowed are 1 to {MAX_RESOLUTION}")
    grid = volume.dense()
    if grid is None:
        shape = (resolution or FIELD_RESOLUTION,) * 3
        values = _sample(volume, shape)
    else:
        own = (int(grid.shape[1]), int(grid.shape[2]), int(grid.shape[3]))
        longest = resolution or max(own)
        shape = own if longest == max(own) else tuple(max(1, round(n * longest / max(own))) for n in own)
        values = (grid if shape == own else resampled(grid, shape)).float().cpu().numpy().copy()
    check_values(values)
    for k, unseen in enumerate(_unseen(values.shape[1:])):
        values[0, k][unseen] = 0.0
    return values


def voxel_centres(count: int) -> Float[np.ndarray, " N"]:
    """World coordinates of the voxels' centres along an axis."""
    return (2.0 * np.arange(count) + 1.0) / count - 1.0


def _unseen(shape: tuple[int, ...]):
    """For each slice, which of its voxels touch no point of the unit ball, interpolation included."""
    near = [np.maximum(np.abs(voxel_centres(n)) - 2.0 / n, 0.0) ** 2 for n in shape]
    plane = near[1][:, None] + near[2][None, :]
    for distance in near[0]:
        yield distance + plane >= 1.0


def _sample(volume: Field, shape: tuple[int, ...]) -> Float[np.ndarray, "2 Z Y X"]:
    weights = next(volume.parameters(), None)
    device = torch.device("cpu") if weights is None else weights.device
    dtype = torch.float32 if weights is None or not weights.is_floating_point() else weights.dtype
    z, y, x = (torch.from_numpy(voxel_centres(n)).to(device, dtype) for n in shape)
    values = np.empty((2, *shape), np.float32)
    rows = max(1, POINTS_AT_ONCE // (shape[1] * shape[2]))
    for first in range(0, shape[0], rows):
        part = slice(first, first + rows)
        grids: tuple[Tensor, ...] = torch.meshgrid(z[part], y, x, indexing="ij")
        for channel, value in enumerate(volume(torch.stack(grids[::-1], dim=-1))):
            values[channel, part] = value.float().cpu().numpy()
    return values
