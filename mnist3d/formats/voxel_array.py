"""A volume as two arrays of voxels, and where in space they lie: what voxel formats are read to and written from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import ExportError, VolumeFileError

WORLD_EXTENT = 2.0  # the volume fills [-1, 1]^3


@dataclass
class Voxels:
    """A volume as arrays, with the place of every voxel.

    Args:
        values: (2, Z, Y, X) float32 in the world's axes: attenuation per world unit, absorbance.
        voxel_size_mm: edge of the smallest side of a voxel in mm; None: lengths stay world units.
    """

    values: Float[np.ndarray, "2 Z Y X"]
    voxel_size_mm: float | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (Z, Y, X)."""
        return self.values.shape[1:]

    @property
    def unit(self) -> str:
        """The unit of all lengths in the file."""
        return "world unit" if self.voxel_size_mm is None else "mm"

    @property
    def scale(self) -> float:
        """Length of a world unit in `unit`."""
        return 1.0 if self.voxel_size_mm is None else self.voxel_size_mm * max(self.shape) / WORLD_EXTENT

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxels' centres along the world's x, y, z, in `unit`."""
        z, y, x = (WORLD_EXTENT * self.scale / n for n in self.shape)
        return x, y, z

    @property
    def origin(self) -> tuple[float, float, float]:
        """Centre of the first voxel in the world's x, y, z, in `unit`; the volume's middle is (0, 0, 0)."""
        x, y, z = ((step - WORLD_EXTENT * self.scale) / 2.0 for step in self.spacing)
        return x, y, z

    @property
    def attenuation(self) -> Float[np.ndarray, "Z Y X"]:
        """Per `unit`, so that attenuation times length is the optical depth in the file's own unit."""
        return self.values[0] if self.scale == 1.0 else self.values[0] / np.float32(self.scale)

    @property
    def absorbance(self) -> Float[np.ndarray, "Z Y X"]:
        """The share of the intercepted light that is lost."""
        return self.values[1]


def upright(array: Float[np.ndarray, "Z Y X"]) -> Float[np.ndarray, "up away right"]:
    """The same voxels for tools whose up is +z: (x, y, z) becomes (x, z, -y), a rotation; a view, no copy.

    The front, which the identity rotation shows, then faces -y, as in Blender's front view and in the patient axes
    of medical images (left, posterior, superior).
    """
    return array[:, ::-1, :].transpose(1, 0, 2)


def upright_xyz(triple: tuple[float, float, float]) -> tuple[float, float, float]:
    """Spacing or (the volume being centred) origin along the axes of `upright`."""
    x, y, z = triple
    return x, z, y


def check_values(values: Float[np.ndarray, "2 Z Y X"]) -> None:
    """Attenuation finite and >= 0, absorbance in [0, 1].

    Raises:
        ExportError: they are not.
    """
    low, high = values[0].min(), values[0].max()  # nan if there is any
    if not (low >= 0.0 and high < np.inf and values[1].min() >= 0.0 and values[1].max() <= 1.0):
        raise ExportError(
            "the volume's attenuation must be finite and >= 0, its absorbance in [0, 1]; this one's is not"
        )


UPRIGHT_AXES = "x right, y away from the viewer, z up (right-handed; the front faces -y)"
ABSORBANCE = "_absorbance"  # NAME_absorbance.SUFFIX, for formats of one channel a file


def layout(voxels: Voxels, axes: str, turned: bool = True) -> dict[str, Any]:
    spacing, origin = voxels.spacing, voxels.origin
    return {
        "axes": axes,
        "spacing_xyz": list(upright_xyz(spacing) if turned else spacing),
        "origin_xyz": list(upright_xyz(origin) if turned else origin),
        "channels": {"attenuation": f"1 / {voxels.unit}", "absorbance": "share of 1"},
    }


def channel_files(voxels: Voxels, path: Path, suffix: str) -> list[tuple[str, np.ndarray, Path]]:
    """Both channels, upright, each with its own file."""
    beside = path.with_name(path.name[: -len(suffix)] + ABSORBANCE + path.name[-len(suffix) :])
    return [
        ("attenuation", upright(voxels.attenuation), path),
        ("absorbance", upright(voxels.absorbance), beside),
    ]


MAX_EDGE = 1024  # voxels, as VoxelGrid
ABSORBANCE = "_absorbance"  # NAME_absorbance.SUFFIX beside a file of one channel


@dataclass
class Found:
    """What lies in a file: channels as (up, away, right), and the distances of voxels along right, away, up."""

    attenuation: np.ndarray
    absorbance: np.ndarray | None
    spacing: Sequence[float]


def check_shape(path: Path, shape: Sequence[int]) -> None:
    if len(shape) != 3 or 0 in shape or max(shape) > MAX_EDGE:
        raise VolumeFileError(f"{path}: its shape is {tuple(shape)}; allowed are three edges of 1 to {MAX_EDGE}")


def turned(data: np.ndarray, directions: Float[np.ndarray, "3 3"]) -> Found:
    """Axes permuted and flipped so that they run left, posterior, superior; what is oblique is taken as straight.

    Args:
        data: indexed by the file's three axes.
        directions: a column each: the step along it, in left, posterior, superior.
    """
    largest = np.abs(directions).argmax(axis=0)
    if sorted(largest) != [0, 1, 2]:
        raise VolumeFileError("its axes' directions are degenerate")
    order = np.argsort(largest)
    flipped = tuple(axis for axis in range(3) if directions[axis, order[axis]] < 0)
    spacing = np.linalg.norm(directions, axis=0)[order]
    return Found(np.flip(data.transpose(order), flipped).transpose(2, 1, 0), None, tuple(spacing))


def one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
