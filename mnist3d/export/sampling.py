"""Any volume as an array of voxels.

A volume sampled at voxels' centres, some slices at a time. Arrays stay in the world's axes, (Z, Y, X) with y down;
`formats` turns them for other tools.
"""

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from ..errors import ExportError
from ..formats import world_length
from ..geometry.grids import MAX_RESOLUTION, scaled_size, voxel_centres
from ..storage.memory import check_fits
from ..volumes.base import Field
from ..volumes.resampling import joined, resampled_in_slabs
from .shares import Tell, silent

FIELD_RESOLUTION = 128  # voxels along each edge for a volume that is no grid and so has none of its own
POINTS_AT_ONCE = 2**18
BYTES_OF_A_VOXEL = 8  # two channels of float32
IN_A_FILE = 2**28  # bytes of an array from which on it can lie in a file instead of in the memory: 322^3 voxels

Shape = tuple[int, ...]
Slabs = Iterator[Float[Tensor, "2 _ Y X"]]


def as_array(
    volume: Field | ArrayLike, resolution: int | None = None, *, besides: int = 0, tell: Tell = silent
) -> Float[np.ndarray, "2 Z Y X"]:
    """`voxel_arrays` of a volume; an array (2, Z, Y, X) in the world's axes as it is.

    Args:
        volume: any backend, or an array.
        resolution: as for `voxel_arrays`.
        besides: bytes a voxel that its user will take while it is there.
        tell: is handed the share that is done and what is done now, for a bar.

    Raises:
        ExportError: a resolution out of range, or one that does not fit into the memory; an array of another shape or
            with values out of range.
    """
    if isinstance(volume, Field):
        return voxel_arrays(volume, resolution, besides=besides, tell=tell)
    if resolution is not None:
        raise ExportError("resolution is for volumes; an array is written as it is")
    values = np.asarray(volume, dtype=np.float32)
    if values.ndim != 4 or values.shape[0] != 2 or 0 in values.shape:
        raise ExportError(f"array has shape {values.shape}: it must be (2, Z, Y, X), none of them 0")
    _check_values(values)
    return values


def voxel_arrays(
    volume: Field, resolution: int | None = None, *, besides: int = 0, tell: Tell = silent
) -> Float[np.ndarray, "2 Z Y X"]:
    """Attenuation per world unit and absorbance at voxel centres, float32, in the world's axes.

    Voxels that no ray can meet (the renderer sees the unit ball alone) hold zero attenuation: nothing was sculpted
    there, and other tools would show it.

    Args:
        volume: any backend.
        resolution: voxels along the longest edge, 1 to 1024; default a grid's own, 128 for a field.
        besides: bytes a voxel that its user will take while it is there.
        tell: is handed the share that is done and what is done now, for a bar.

    Raises:
        ExportError: a resolution out of range, or one that does not fit into the memory; values out of their range.
    """
    shape, slabs = _voxels_in_slabs(volume, resolution)
    _check_memory(shape, BYTES_OF_A_VOXEL + besides)
    return joined(_told(slabs, shape, tell), _room(shape)).numpy()


def filed_voxels(
    volume: Field | ArrayLike,
    resolution: int | None,
    folder: Path,
    voxel_size_mm: float | None = None,
    *,
    besides: int = 0,
    tell: Tell = silent,
) -> Float[np.ndarray, "2 Z Y X"]:
    """`as_array` for who reads it slice by slice: a large one lies in a file without a name, which ends with it.

    Args:
        volume: any backend, or an array.
        resolution: as for `voxel_arrays`.
        folder: where the file lies; there must be room for it.
        voxel_size_mm: as for `world_voxels`.
        besides: bytes a voxel that its user will take while it is there.
        tell: is handed the share that is done and what is done now, for a bar.

    Returns:
        Attenuation per world unit, or per mm, and absorbance; what lies in a file can be read only.

    Raises:
        ExportError: as `as_array`.
        OSError: no room in the folder.
    """
    if not isinstance(volume, Field):
        values = as_array(volume, resolution)
        return _divided(values, world_length(values.shape[1:], voxel_size_mm))
    shape, slabs = _voxels_in_slabs(volume, resolution)
    slabs = _told(slabs, shape, tell)
    length = world_length(shape, voxel_size_mm)
    if BYTES_OF_A_VOXEL * math.prod(shape) < IN_A_FILE:
        _check_memory(shape, BYTES_OF_A_VOXEL + besides)
        return _divided(joined(slabs, _room(shape)).numpy(), length)
    _check_memory(shape, besides)
    with tempfile.TemporaryFile(dir=folder) as file:
        begin = 0
        for slab in slabs:
            for channel, values in enumerate(_divided(slab.numpy(), length)):
                file.seek(values.itemsize * (channel * math.prod(shape) + begin * math.prod(shape[1:])))
                file.write(values.tobytes())
            begin += slab.shape[1]
        file.flush()
        return np.memmap(file, np.float32, "r", shape=(2, *shape))


@torch.no_grad()
def sampled(
    volume: Field, resolution: int | None, field_resolution: int, *, besides: int = 0, tell: Tell = silent
) -> Float[Tensor, "2 Z Y X"]:
    """A volume at voxels' centres: a grid's own voxels or as many as asked for, a field's answers.

    Args:
        volume: any; its proportions are kept.
        resolution: voxels along the longest edge; None: a grid's own.
        field_resolution: the same for a volume that is no grid.
        besides: bytes a voxel that its user will take while it is there.
        tell: is handed the share that is done and what is done now, for a bar.

    Returns:
        Attenuation per world unit and absorbance: on the CPU, float32, and the caller's own.

    Raises:
        ExportError: they do not fit into the memory.
    """
    shape, slabs = _in_slabs(volume, resolution, field_resolution)
    _check_memory(shape, BYTES_OF_A_VOXEL + besides)
    return joined(_told(slabs, shape, tell), _room(shape))


@torch.no_grad()
def _in_slabs(volume: Field, resolution: int | None, field_resolution: int) -> tuple[Shape, Slabs]:
    """The shape of `sampled`, and its slices along z, some at a time."""
    grid = volume.dense()
    if grid is None:
        size = resolution or field_resolution
        return (size,) * 3, _asked(volume, size)
    shape = tuple(grid.shape[1:])
    if resolution in (None, max(shape)):
        return shape, iter(grid.split(max(1, POINTS_AT_ONCE // math.prod(shape[1:])), dim=1))
    shape = scaled_size(shape, resolution)
    return shape, resampled_in_slabs(grid, shape)


def _told(slabs: Slabs, shape: Shape, tell: Tell) -> Slabs:
    """The slices as they come, and of each where it ends."""
    done = 0
    for slab in slabs:
        done += slab.shape[1]
        tell(done / shape[0], f"asking for {'x'.join(map(str, shape[::-1]))} voxels")
        yield slab


def _asked(field: Field, resolution: int) -> Slabs:
    """A field's answers."""
    axis = voxel_centres(resolution).to(field.like())
    for heights in axis.split(max(1, POINTS_AT_ONCE // resolution**2)):
        places = torch.meshgrid(heights, axis, axis, indexing="ij")
        yield torch.stack(field(torch.stack(places[::-1], dim=-1)))


def _voxels_in_slabs(volume: Field, resolution: int | None) -> tuple[Shape, Slabs]:
    """The shape of `voxel_arrays`, and its slices along z, some at a time, each the caller's own."""
    if resolution is not None and not 1 <= resolution <= MAX_RESOLUTION:
        raise ExportError(f"resolution={resolution}: must be in [1, {MAX_RESOLUTION}]")
    shape, slabs = _in_slabs(volume, resolution, FIELD_RESOLUTION)
    return shape, _seen(slabs, shape)


@torch.no_grad()
def _seen(slabs: Slabs, shape: Shape) -> Slabs:
    unseen = _unseen(shape)
    for slab in slabs:
        copied = slab.to("cpu", torch.float32, copy=True)
        values = copied.numpy()
        _check_values(values)
        for layer, hidden in zip(values[0], unseen, strict=False):  # `unseen` goes on with the next slab
            layer[hidden] = 0.0
        yield copied


def _unseen(shape: Shape) -> Iterator[np.ndarray]:
    """For each slice, which of its voxels touch no point of the unit ball, interpolation included."""
    near = [np.maximum(np.abs(voxel_centres(n).numpy()) - 2.0 / n, 0.0) ** 2 for n in shape]
    plane = near[1][:, None] + near[2][None, :]
    for distance in near[0]:
        yield distance + plane >= 1.0


def _room(shape: Shape) -> Float[Tensor, "2 Z Y X"]:
    return torch.empty(2, *shape, dtype=torch.float32, device="cpu")


def _divided(values: Float[np.ndarray, "2 _ Y X"], length: float) -> Float[np.ndarray, "2 _ Y X"]:
    return values if length == 1.0 else np.stack([values[0] / np.float32(length), values[1]])


def _check_memory(shape: Shape, bytes_of_a_voxel: int) -> None:
    words = "x".join(map(str, shape[::-1]))
    longest = max(shape)
    what = f"resolution={longest}: {words} voxels take"
    check_fits(bytes_of_a_voxel * math.prod(shape), what, "lower resolution", ExportError)


def _check_values(values: Float[np.ndarray, "2 _ Y X"]) -> None:
    low, high = values[0].min(), values[0].max()  # nan if there is any
    if not (low >= 0.0 and high < np.inf and values[1].min() >= 0.0 and values[1].max() <= 1.0):
        raise ExportError(
            "the volume's attenuation must be finite and >= 0, its absorbance in [0, 1]; this one's is not"
        )
