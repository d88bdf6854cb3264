"""Voxels and the box they fill: what a format's reader finds and its writer is given.

One type for both directions, and the turn from the world's axes to upright ones and back.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import VolumeFileError
from ..geometry.grids import MAX_RESOLUTION, WORLD_EXTENT
from ..storage.memory import check_fits

# How many voxels are made of one of a file: a single slice of 1024 x 1024 fills its cube, a single line does not.
MOST_GROWTH, GROWN_FREELY = 1024, 512**3
VOXEL_BYTES = 32  # while a file is read, a voxel of the finished array, which takes 8
FILE_UNIT = "unit of the file"
UPRIGHT_AXES = "x right, y away from the viewer, z up (right-handed; the front faces -y)"
ABSORBANCE = "_absorbance"  # NAME_absorbance.SUFFIX, for formats of one channel a file


@dataclass(frozen=True)
class Voxels:
    """A volume as voxels in the world's axes, and how long the box is that they fill.

    Args:
        values: attenuation per `unit`, then absorbance, which a file of one channel does not tell.
        extent: edges of the box along the world's x, y, z, in `unit`; its middle is (0, 0, 0).
        unit: of all lengths: "world unit", "mm", or that of the file that was read.
        oblique: None: the axes are the world's. Else the values lie by the axes of the file and the extent says
            nothing yet: a column an axis, the step along it, in x right, y away, z up.
    """

    values: Float[np.ndarray, "C Z Y X"]
    extent: tuple[float, float, float]
    unit: str = FILE_UNIT
    oblique: Float[np.ndarray, "3 3"] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (Z, Y, X)."""
        return self.values.shape[1:]

    @property
    def scale(self) -> float:
        """Length of a world unit in `unit`: the longest edge is as long as the world's."""
        return max(self.extent) / WORLD_EXTENT

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxels' centres along the world's x, y, z, in `unit`."""
        (along_x, along_y, along_z), (z, y, x) = self.extent, self.shape
        return along_x / x, along_y / y, along_z / z

    @property
    def origin(self) -> tuple[float, float, float]:
        """Centre of the first voxel in the world's x, y, z, in `unit`."""
        x, y, z = ((step - edge) / 2.0 for step, edge in zip(self.spacing, self.extent, strict=True))
        return x, y, z

    @property
    def attenuation(self) -> Float[np.ndarray, "Z Y X"]:
        """Per `unit`, so that attenuation times length is the optical depth in the file's own unit."""
        return self.values[0]

    @property
    def tells_absorbance(self) -> bool:
        """Whether both channels are there."""
        return len(self.values) == 2

    @property
    def absorbance(self) -> Float[np.ndarray, "Z Y X"]:
        """The share of the intercepted light that is lost; 0 where it is not told."""
        return self.values[1] if self.tells_absorbance else np.zeros_like(self.values[0])


def world_length(shape: Sequence[int], voxel_size_mm: float | None = None) -> float:
    """Length of a world unit, in mm; without a size of voxels 1.

    Args:
        shape: voxels along (Z, Y, X).
        voxel_size_mm: edge of the smallest side of a voxel.
    """
    return 1.0 if voxel_size_mm is None else voxel_size_mm * max(shape) / WORLD_EXTENT


def world_voxels(values: Float[np.ndarray, "2 Z Y X"], voxel_size_mm: float | None = None) -> Voxels:
    """Voxels that fill [-1, 1]^3, as a writer needs them.

    Args:
        values: attenuation per world unit, or with `voxel_size_mm` per mm, and absorbance, in the world's axes.
        voxel_size_mm: edge of the smallest side of a voxel in mm; None: lengths are world units.
    """
    edge = WORLD_EXTENT * world_length(values.shape[1:], voxel_size_mm)
    return Voxels(values, (edge, edge, edge), "world unit" if voxel_size_mm is None else "mm")


def file_voxels(path: Path, channels: Sequence[np.ndarray], spacing: Sequence[float]) -> Voxels:
    """Voxels as a reader found them.

    Args:
        path: for the message.
        channels: attenuation and, where the file tells it, absorbance, in the world's axes.
        spacing: distance of the voxels along the world's x, y, z; one that is no length is taken as cubes.

    Raises:
        VolumeFileError: channels of no or too many voxels, or of two shapes.
    """
    for channel in channels:
        check_shape(path, channel.shape)
    edges = np.asarray(spacing, float) * channels[0].shape[::-1]
    if not (np.isfinite(edges).all() and (edges > 0.0).all()):
        edges = np.array(channels[0].shape[::-1], float)
    x, y, z = edges.tolist()
    return Voxels(stacked(path, channels), (x, y, z))


def stacked(path: Path, channels: Sequence[np.ndarray]) -> Float[np.ndarray, "C Z Y X"]:
    """The channels as one array.

    Raises:
        VolumeFileError: they are of two shapes.
    """
    if channels[-1].shape != channels[0].shape:
        raise VolumeFileError(f"{path}: absorbance {channels[-1].shape} does not fit attenuation {channels[0].shape}")
    return np.stack([np.asarray(channel, np.float32) for channel in channels])


def check_shape(path: Path, shape: Sequence[int]) -> None:
    """Fail, where a header tells it, before a small file fills the memory.

    Raises:
        VolumeFileError: not three edges of 1 to 1024 voxels.
    """
    if len(shape) != 3 or min(shape) < 1 or max(shape) > MAX_RESOLUTION:
        raise VolumeFileError(f"{path}: its shape is {tuple(shape)}; it must be three edges in [1, {MAX_RESOLUTION}]")


def check_growth(path: Path, held: Sequence[int], wanted: Sequence[int], what: str) -> None:
    """Fail where few voxels would become very many, or more than the memory holds.

    Args:
        path: for the message.
        held: the shape that the file has.
        wanted: the shape that is to be made of it.
        what: that, for the message.

    Raises:
        VolumeFileError: so many are too many.
    """
    count = math.prod(wanted)
    if count > max(MOST_GROWTH * math.prod(held), GROWN_FREELY):
        raise VolumeFileError(
            f"{path}: {what} has {tuple(wanted)} voxels, of {tuple(held)} in the file; must be at most {MOST_GROWTH} "
            "times as many: resample it in the tool that made it"
        )
    check_fits(
        VOXEL_BYTES * count,
        f"{path}: reading {tuple(wanted)} voxels takes",
        "write fewer voxels in the tool that made it",
        VolumeFileError,
    )


def upright(array: Float[np.ndarray, "Z Y X"]) -> Float[np.ndarray, "up away right"]:
    """The same voxels for tools whose up is +z: (x, y, z) becomes (x, z, -y), a rotation; a view, no copy.

    The front, which the identity rotation shows, then faces -y, as in Blender's front view and in the patient axes
    of medical images (left, posterior, superior).
    """
    return array[:, ::-1, :].transpose(1, 0, 2)


def from_upright(array: Float[np.ndarray, "up away right"]) -> Float[np.ndarray, "Z Y X"]:
    """The inverse of `upright`; a view, no copy."""
    return array.transpose(1, 0, 2)[:, ::-1, :]


def upright_xyz(triple: Sequence[float]) -> tuple[float, float, float]:
    """Spacing or (the volume being centred) origin along the axes of `upright`; its own inverse."""
    x, y, z = triple
    return x, z, y


def layout(voxels: Voxels, axes: str, turned: bool = True) -> dict[str, Any]:
    """Where the voxels lie in a file that was written, for its description.

    Args:
        voxels: what was written.
        axes: the file's, in words.
        turned: whether they are `upright`, else the world's.
    """
    spacing, origin = voxels.spacing, voxels.origin
    return {
        "axes": axes,
        "spacing_xyz": list(upright_xyz(spacing) if turned else spacing),
        "origin_xyz": list(upright_xyz(origin) if turned else origin),
        "channels": {"attenuation": f"1 / {voxels.unit}", "absorbance": "share of 1"},
    }


def absorbance_file(path: Path, suffix: str) -> Path:
    """NAME_absorbance.SUFFIX beside a file of one channel."""
    return path.with_name(path.name[: -len(suffix)] + ABSORBANCE + path.name[-len(suffix) :])


def channel_files(voxels: Voxels, path: Path, suffix: str) -> list[tuple[str, np.ndarray, Path]]:
    """Both channels, upright, each with its own file."""
    return [
        ("attenuation", upright(voxels.attenuation), path),
        ("absorbance", upright(voxels.absorbance), absorbance_file(path, suffix)),
    ]
