"""Any volume as an array of voxels.

A volume sampled at voxels' centres, in parts. Arrays stay in the world's axes, (Z, Y, X) with y down; `formats` turns
them for other tools.
"""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from ..errors import ExportError
from ..geometry.grids import MAX_RESOLUTION, scaled_size, voxel_centres
from ..volumes.base import Field
from ..volumes.resampling import resampled

FIELD_RESOLUTION = 128  # voxels along each edge for a volume that is no grid and so has none of its own
POINTS_AT_ONCE = 2**18


def as_array(volume: Field | ArrayLike, resolution: int | None = None) -> Float[np.ndarray, "2 Z Y X"]:
    """`voxel_arrays` of a volume; an array (2, Z, Y, X) in the world's axes as it is.

    Raises:
        ExportError: a resolution out of range, an array of another shape or with values out of range.
    """
    if isinstance(volume, Field):
        return voxel_arrays(volume, resolution)
    if resolution is not None:
        raise ExportError("resolution is for volumes; an array is written as it is")
    values = np.asarray(volume, dtype=np.float32)
    if values.ndim != 4 or values.shape[0] != 2 or 0 in values.shape:
        raise ExportError(f"array has shape {values.shape}: it must be (2, Z, Y, X), none of them 0")
    _check_values(values)
    return values


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
        raise ExportError(f"resolution={resolution}: must be in [1, {MAX_RESOLUTION}]")
    values = sampled(volume, resolution, FIELD_RESOLUTION).numpy()
    _check_values(values)
    for k, unseen in enumerate(_unseen(values.shape[1:])):
        values[0, k][unseen] = 0.0
    return values


@torch.no_grad()
def sampled(volume: Field, resolution: int | None, field_resolution: int) -> Float[Tensor, "2 Z Y X"]:
    """A volume at voxels' centres: a grid's own voxels or as many as asked for, a field's answers.

    Args:
        volume: any; its proportions are kept.
        resolution: voxels along the longest edge; None: a grid's own.
        field_resolution: the same for a volume that is no grid.

    Returns:
        Attenuation per world unit and absorbance: on the CPU, float32, and the caller's own.
    """
    grid = volume.dense()
    if grid is None:
        return _asked(volume, resolution or field_resolution)
    if resolution in (None, max(grid.shape[1:])):
        return grid.to("cpu", torch.float32, copy=True)
    return resampled(grid, scaled_size(grid.shape[1:], resolution)).to("cpu", torch.float32)


def _asked(field: Field, resolution: int) -> Float[Tensor, "2 N N N"]:
    """A field's answers, a part at a time."""
    axis = voxel_centres(resolution).to(field.like())
    values = torch.empty(2, resolution, resolution, resolution, dtype=torch.float32, device="cpu")
    rows = max(1, POINTS_AT_ONCE // resolution**2)
    for heights, part in zip(axis.split(rows), values.split(rows, dim=1), strict=True):
        places = torch.meshgrid(heights, axis, axis, indexing="ij")
        for channel, answer in zip(part, field(torch.stack(places[::-1], dim=-1)), strict=True):
            channel.copy_(answer)
    return values


def _unseen(shape: tuple[int, ...]):
    """For each slice, which of its voxels touch no point of the unit ball, interpolation included."""
    near = [np.maximum(np.abs(voxel_centres(n).numpy()) - 2.0 / n, 0.0) ** 2 for n in shape]
    plane = near[1][:, None] + near[2][None, :]
    for distance in near[0]:
        yield distance + plane >= 1.0


def _check_values(values: Float[np.ndarray, "2 Z Y X"]) -> None:
    low, high = values[0].min(), values[0].max()  # nan if there is any
    if not (low >= 0.0 and high < np.inf and values[1].min() >= 0.0 and values[1].max() <= 1.0):
        raise ExportError(
            "the volume's attenuation must be finite and >= 0, its absorbance in [0, 1]; this one's is not"
        )
