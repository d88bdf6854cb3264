"""Other tools' voxel files -> the array of a VoxelGrid.

The table of readers, and the way from the box of a file into the cube of the world. No code in a file is run.
"""

import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from ..errors import VolumeFileError
from ..geometry.grids import MAX_RESOLUTION, averaged, shares
from ..storage.plain_files import check_plain_file
from .mrc import read_mrc
from .nifti import read_nifti
from .npz import read_npy, read_npz
from .nrrd import read_nrrd
from .orientation import straightened
from .picking import Pick, split_pick
from .values import ValueOptions, make_usable, scale
from .vdb_reading import read_vdb
from .voxel_array import Voxels, absorbance_file, check_growth, stacked
from .vti_reading import read_vti

WHOLE = 1e-3  # as a share: spacings are often written with few digits
READERS: dict[str, Callable[[Path, Pick], Voxels]] = {
    ".npz": read_npz,
    ".npy": read_npy,
    ".nrrd": read_nrrd,
    ".nhdr": read_nrrd,
    ".nii.gz": read_nifti,
    ".nii": read_nifti,
    ".hdr": read_nifti,
    ".img": read_nifti,
    ".mrc": read_mrc,
    ".mrc.gz": read_mrc,
    ".map": read_mrc,
    ".map.gz": read_mrc,
    ".ccp4": read_mrc,
    ".vti": read_vti,
    ".vdb": read_vdb,
}
OF_ARRAYS = {".npz", ".vti", ".vdb"}  # formats whose arrays have names


@np.errstate(over="ignore")  # beyond float32 is infinity, which is counted as such
def read_voxels(
    path: str | Path,
    *,
    negative: str = "refuse",
    not_finite: str = "refuse",
    threshold: float | None = None,
    percentile: float | None = None,
) -> Float[np.ndarray, "2 Z Y X"]:
    """Attenuation per world unit and absorbance of a voxel file, in the world's axes, filling [-1, 1]^3.

    The box of the file is put in the middle, its longest edge as long as the cube's; what is then beyond the unit ball
    is not rendered. Voxels stay as they are, which may leave the box half a voxel beside the middle, unless the cube's
    edge is no whole number of them: then they are averaged along that axis to as many as come nearest. Lengths and
    attenuation are taken in the same unit, so that the optical depth stays. A file of one channel is attenuation; its
    absorbance is NAME_absorbance.SUFFIX beside it, or 0. Mirrored and permuted axes are turned; oblique ones are
    resampled, see `oriented_voxels`.

    Args:
        path: a file of one of the suffixes in `READERS`, ours or another tool's; behind # what is picked from it and
            what is done with its values, as in "bold.nii.gz#frame=3,negative=clip".
        negative, not_finite, threshold, percentile: see `ValueOptions`; applied in the file, before its box is put into
            the cube.

    Raises:
        VolumeFileError: missing or damaged file, unknown suffix, no reader installed, or values out of range.
        ValueError: an option with a value that is not allowed.
    """
    named = str(path)
    options = ValueOptions(negative, not_finite, threshold, percentile)
    path, pick = split_pick(path)
    try:
        options = options.told(pick.values)
    except ValueError as error:
        raise VolumeFileError(f"{named}: {error}") from None
    suffix = next((suffix for suffix in READERS if path.name.lower().endswith(suffix)), None)
    if suffix is None:
        raise VolumeFileError(f"{path}: unknown suffix; must be one of {', '.join(READERS)}")
    _check_plain(path)
    if pick.array is not None and suffix not in OF_ARRAYS:
        raise VolumeFileError(
            f"{path}#array={pick.array}: must be left out: a {suffix} holds one array, without a name"
        )
    try:
        voxels = _read(suffix, path, pick)
        absorbance, beside = voxels.absorbance, absorbance_file(path, suffix)
        if not voxels.tells_absorbance and os.path.exists(beside):
            _check_plain(beside)
            other = _read(suffix, beside, Pick())
            turned, also = (np.zeros((3, 3)) if each.oblique is None else each.oblique for each in (voxels, other))
            if not np.allclose(turned, also):
                raise VolumeFileError(f"{beside}: its axes must run as those of {path.name}")
            absorbance = other.attenuation
    except VolumeFileError:
        raise
    except RecursionError:
        raise VolumeFileError(f"{path}: damaged: it is nested too deeply") from None
    except MemoryError:
        raise VolumeFileError(f"{path}: does not fit into the memory") from None
    except Exception as error:  # every library has its own
        reason = (" ".join(str(error).split()) or type(error).__name__)[:200]
        raise VolumeFileError(f"{path}: damaged, or not what its suffix says ({reason})") from None
    values = stacked(path, [voxels.attenuation, absorbance])
    factor = make_usable(named, values, options)
    voxels = straightened(path, replace(voxels, values=values))
    values = _in_the_cube(path, voxels.values, voxels.extent)
    scale(named, values, voxels.scale if factor is None else factor)
    return values


def _read(suffix: str, path: Path, pick: Pick) -> Voxels:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries, about what is refused or repaired
        return READERS[suffix](path, pick)


def _check_plain(path: Path) -> None:
    """A pipe would be waited for; a device, a folder and a socket hold no voxels."""
    try:
        check_plain_file(path)
    except FileNotFoundError:
        raise VolumeFileError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # of a name that no file can have
        raise VolumeFileError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def _in_the_cube(
    path: Path, values: Float[np.ndarray, "2 Z Y X"], extent: tuple[float, float, float]
) -> Float[np.ndarray, "2 z y x"]:
    """The box in the middle of the cube, whose edge is the box's longest."""
    shape, edges = np.array(values.shape[1:]), np.array(extent[::-1])  # along z, y, x
    across = edges.max() / edges * shape  # the cube's edge, in voxels
    most = np.rint(across).max()
    if not most <= MAX_RESOLUTION:
        raise VolumeFileError(f"{path}: a cube around it has {most:.0f} voxels an edge; it must be <= {MAX_RESOLUTION}")
    wanted = np.maximum(np.rint(across), 1).astype(int)
    check_growth(path, values.shape[1:], wanted.tolist(), "the cube around it")
    uneven = abs(wanted - across) > WHOLE * across
    if uneven.any():
        kept = np.where(uneven, wanted, shape)
        filled = np.where(uneven, across, shape)
        weights = [shares(*each) for each in zip(shape.tolist(), kept.tolist(), filled.tolist(), strict=True)]
        values = averaged(torch.from_numpy(values), weights).numpy()
    missing = np.maximum(wanted - values.shape[1:], 0)
    return np.pad(values, [(0, 0), *((int(n // 2), int(n - n // 2)) for n in missing)])
