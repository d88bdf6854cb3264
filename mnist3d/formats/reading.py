"""Other tools' voxel files -> the array of a VoxelGrid.

What it is: one reader a format, each by that format's own library, and the turn from upright axes to the world's.
What it is not: it runs no code from a file, and writes none (`export`).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ..errors import VolumeFileError
from .mrc import read_mrc
from .nifti import read_nifti
from .npz import read_npz
from .nrrd import read_nrrd
from .vdb import read_vdb
from .voxel_array import ABSORBANCE, MAX_EDGE, Found, check_shape, one_line
from .vti import read_vti

WHOLE = 1e-3  # as a share: spacings are often written with few digits


def read_voxels(path: str | Path) -> Float[np.ndarray, "2 Z Y X"]:
    """Attenuation per world unit and absorbance of a voxel file, in the world's axes, filling [-1, 1]^3.

    The box of the file is put in the middle, its longest edge as long as the cube's; what is then beyond the unit ball
    is not rendered. Voxels stay as they are, which may leave the box half a voxel beside the middle, unless the cube's
    edge is no whole number of them: then they are averaged along that axis to as many as come nearest. Lengths and
    attenuation are taken in the same unit, so that the optical depth stays. A file of one channel is attenuation; its
    absorbance is NAME_absorbance.SUFFIX beside it, or 0.

    Args:
        path: .npz, .nrrd, .nii.gz, .nii, .mrc, .vti or .vdb, ours or another tool's.

    Raises:
        VolumeFileError: missing or damaged file, unknown suffix, no reader installed, or values out of range.
    """
    path = Path(path)
    suffix = next((suffix for suffix in READERS if path.name.lower().endswith(suffix)), None)
    if suffix is None:
        raise VolumeFileError(f"{path}: unknown suffix; allowed are {', '.join(READERS)}")
    if not path.is_file():
        raise VolumeFileError(f"{path}: no such file")
    try:
        found = READERS[suffix](path)
        beside = path.with_name(path.name[: -len(suffix)] + ABSORBANCE + path.name[-len(suffix) :])
        if found.absorbance is None and beside.is_file():
            found.absorbance = READERS[suffix](beside).attenuation
    except VolumeFileError:
        raise
    except Exception as error:  # every library has its own
        raise VolumeFileError(f"{path}: damaged, or not what its suffix says ({one_line(error)})") from None
    return _in_the_world(path, found)


def _in_the_world(path: Path, found: Found) -> Float[np.ndarray, "2 Z Y X"]:
    attenuation = np.asarray(found.attenuation, np.float32)
    check_shape(path, attenuation.shape)
    absorbance = np.zeros_like(attenuation) if found.absorbance is None else np.asarray(found.absorbance, np.float32)
    if absorbance.shape != attenuation.shape:
        raise VolumeFileError(f"{path}: absorbance {absorbance.shape} does not fit attenuation {attenuation.shape}")
    low, high = float(attenuation.min()), float(attenuation.max())
    if not (low >= 0.0 and high < np.inf):
        raise VolumeFileError(
            f"{path}: its values lie in [{low:g}, {high:g}]; attenuation must be finite and >= 0, so subtract "
            f"{low:g} in the tool that made it"
        )
    if not (float(absorbance.min()) >= 0.0 and float(absorbance.max()) <= 1.0):
        raise VolumeFileError(f"{path}: its absorbance leaves [0, 1]")
    values = np.stack([attenuation, absorbance]).transpose(0, 2, 1, 3)[:, :, ::-1]  # to (Z, Y, X), y down
    spacing = np.array([found.spacing[1], found.spacing[2], found.spacing[0]], float)  # along z, y, x
    if not (np.isfinite(spacing).all() and (spacing > 0.0).all()):
        spacing = np.ones(3)
    extent = spacing * values.shape[1:]
    across = extent.max() / spacing
    wanted = np.maximum(np.rint(across), 1).astype(int)
    if wanted.max() > MAX_EDGE:
        raise VolumeFileError(f"{path}: a cube around it has {wanted.max()} voxels an edge; allowed are {MAX_EDGE}")
    for axis in np.flatnonzero(abs(wanted - across) > WHOLE * across):
        values = _resampled(values, 1 + int(axis), float(across[axis]), int(wanted[axis]))
    missing = np.maximum(wanted - values.shape[1:], 0)
    values = np.pad(values, [(0, 0), *((int(n // 2), int(n - n // 2)) for n in missing)])
    values[0] *= np.float32(extent.max() / 2.0)
    return values


def _resampled(values: Float[np.ndarray, "2 Z Y X"], axis: int, across: float, count: int) -> np.ndarray:
    """Means over `count` equal parts of an edge `across` voxels long, in whose middle the voxels are.

    Optical depths along the axis stay; absorbance is the mean over what is there to absorb.
    """
    attenuation = np.moveaxis(values[0], axis - 1, 0)
    absorbed = attenuation * np.moveaxis(values[1], axis - 1, 0)
    made = np.zeros((2, count, *attenuation.shape[1:]), np.float32)
    first = (across - len(attenuation)) / 2.0  # where the voxels begin
    for k in range(count):
        low, high = (np.array([k, k + 1]) * across / count - first).clip(0, len(attenuation))
        for index in range(int(low), int(np.ceil(high))):
            share = np.float32((min(high, index + 1) - max(low, index)) * count / across)
            made[0, k] += share * attenuation[index]
            made[1, k] += share * absorbed[index]
    made[1] = np.divide(made[1], made[0], out=np.zeros_like(made[1]), where=made[0] > 0).clip(0.0, 1.0)
    return np.moveaxis(made, 1, axis)


READERS: dict[str, Callable[[Path], Found]] = {
    ".npz": read_npz,
    ".nrrd": read_nrrd,
    ".nii.gz": read_nifti,
    ".nii": read_nifti,
    ".mrc": read_mrc,
    ".vti": read_vti,
    ".vdb": read_vdb,
}
