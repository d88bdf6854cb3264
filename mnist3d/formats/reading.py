"""Other tools' voxel files -> the array of a VoxelGrid.

The table of readers, and the way from the box of a file into the cube of the world. No code in a file is run.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from ..errors import VolumeFileError
from ..geometry.grids import MAX_RESOLUTION, averaged, shares
from .mrc import read_mrc
from .nifti import read_nifti
from .npz import read_npz
from .nrrd import read_nrrd
from .vdb import read_vdb
from .voxel_array import Voxels, absorbance_file, stacked
from .vti import read_vti

WHOLE = 1e-3  # as a share: spacings are often written with few digits
READERS: dict[str, Callable[[Path], Voxels]] = {
    ".npz": read_npz,
    ".nrrd": read_nrrd,
    ".nii.gz": read_nifti,
    ".nii": read_nifti,
    ".mrc": read_mrc,
    ".vti": read_vti,
    ".vdb": read_vdb,
}


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
        raise VolumeFileError(f"{path}: unknown suffix; must be one of {', '.join(READERS)}")
    if not path.is_file():
        raise VolumeFileError(f"{path}: no such file")
    try:
        voxels = READERS[suffix](path)
        absorbance, beside = voxels.absorbance, absorbance_file(path, suffix)
        if not voxels.tells_absorbance and beside.is_file():
            absorbance = READERS[suffix](beside).attenuation
    except VolumeFileError:
        raise
    except Exception as error:  # every library has its own
        reason = (" ".join(str(error).split()) or type(error).__name__)[:200]
        raise VolumeFileError(f"{path}: damaged, or not what its suffix says ({reason})") from None
    values = stacked(path, [voxels.attenuation, absorbance])
    _check_values(path, values)
    values = _in_the_cube(path, values, voxels.extent)
    values[0] *= np.float32(voxels.scale)
    return values


def _check_values(path: Path, values: Float[np.ndarray, "2 Z Y X"]) -> None:
    low, high = float(values[0].min()), float(values[0].max())
    if not (low >= 0.0 and high < np.inf):
        raise VolumeFileError(
            f"{path}: its values lie in [{low:g}, {high:g}]; attenuation must be finite and >= 0, so subtract "
            f"{low:g} in the tool that made it"
        )
    if not (float(values[1].min()) >= 0.0 and float(values[1].max()) <= 1.0):
        raise VolumeFileError(f"{path}: its absorbance leaves [0, 1]")


def _in_the_cube(
    path: Path, values: Float[np.ndarray, "2 Z Y X"], extent: tuple[float, float, float]
) -> Float[np.ndarray, "2 z y x"]:
    """The box in the middle of the cube, whose edge is the box's longest."""
    shape, edges = np.array(values.shape[1:]), np.array(extent[::-1])  # along z, y, x
    across = edges.max() / edges * shape  # the cube's edge, in voxels
    wanted = np.maximum(np.rint(across), 1).astype(int)
    if wanted.max() > MAX_RESOLUTION:
        raise VolumeFileError(
            f"{path}: a cube around it has {wanted.max()} voxels an edge; it must be <= {MAX_RESOLUTION}"
        )
    uneven = abs(wanted - across) > WHOLE * across
    if uneven.any():
        kept = np.where(uneven, wanted, shape)
        filled = np.where(uneven, across, shape)
        weights = [shares(*each) for each in zip(shape.tolist(), kept.tolist(), filled.tolist(), strict=True)]
        values = averaged(torch.from_numpy(values), weights).numpy()
    missing = np.maximum(wanted - values.shape[1:], 0)
    return np.pad(values, [(0, 0), *((int(n // 2), int(n - n // 2)) for n in missing)])
