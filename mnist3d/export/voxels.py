"""Voxel files for other tools, by suffix.

    export_voxels(volume, "sculpture.vdb", resolution=128)

What it is: the table of formats and the one function that writes them. What it is not: the formats themselves
(`voxel_writers`, `vdb`, `vox`), or resampling (`sampling`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from ..formats.mrc import write_mrc
from ..formats.nifti import write_nifti
from ..formats.npz import write_npz
from ..formats.nrrd import write_nrrd
from ..formats.raw import write_raw
from ..formats.tiff import write_tif
from ..formats.vdb import write_vdb
from ..formats.vox import write_vox
from ..formats.voxel_array import Voxels
from ..formats.vti import write_vti
from ..storage.atomic import check_output, whole_files, write_description
from ..volumes.base import Field
from .sampling import as_voxels


@dataclass(frozen=True)
class VoxelFormat:
    """A voxel format.

    Args:
        write: called with the voxels, the temporary file's path and a description; returns what the format adds to
            the description.
        opens_with: programs that read it.
    """

    write: Callable[[Voxels, Path, dict[str, Any]], dict[str, Any]]
    opens_with: str


VOXEL_FORMATS: dict[str, VoxelFormat] = {
    ".npz": VoxelFormat(write_npz, "NumPy, mnist3d"),
    ".nrrd": VoxelFormat(write_nrrd, "3D Slicer, ParaView, ITK-SNAP, napari"),
    ".nii.gz": VoxelFormat(write_nifti, "3D Slicer, ITK-SNAP, MRIcroGL, napari"),
    ".mrc": VoxelFormat(write_mrc, "ChimeraX, IMOD, napari"),
    ".vti": VoxelFormat(write_vti, "ParaView, VTK, PyVista"),
    ".vdb": VoxelFormat(write_vdb, "Blender, Houdini, OpenVDB"),
    ".vox": VoxelFormat(write_vox, "MagicaVoxel, Goxel"),
    ".raw": VoxelFormat(write_raw, "Unity, Unreal, Godot, WebGL as a 3D texture (layout: the .json)"),
    ".tif": VoxelFormat(write_tif, "ImageJ, Fiji, napari"),
}


def export_voxels(
    volume: Field | ArrayLike,
    path: str | Path,
    *,
    resolution: int | None = None,
    voxel_size_mm: float | None = None,
    description: dict[str, Any] | None = None,
) -> Path:
    """Write a volume as the voxel file that the suffix of `path` names, and `PATH.json` beside it.

    Formats of one channel a file (nrrd, nii.gz, mrc) hold the attenuation; the absorbance lies beside it, in
    NAME_absorbance. docs/formats.md has every format's axes and units.

    Args:
        volume: any backend, or an array (2, Z, Y, X) in the world's axes: attenuation per world unit, absorbance.
        path: its suffix is one of `VOXEL_FORMATS`.
        resolution: voxels along the longest edge, 1 to 1024; default a grid's own, 128 for a field.
        voxel_size_mm: edge of a voxel in mm, which makes mm the file's unit of length and 1/mm that of the
            attenuation; default world units, of which the volume is 2 wide.
        description: where the volume comes from; it goes into the .json and, where the format can hold text, the file.

    Raises:
        ExportError: an unknown suffix, a value out of range, a missing library, or a disk that cannot be written.
    """
    path = Path(path)
    suffix = check_output(path, VOXEL_FORMATS)
    voxels = as_voxels(volume, resolution, voxel_size_mm)
    described = {**(description or {}), "format": suffix, "resolution_zyx": list(voxels.shape), "unit": voxels.unit}
    with whole_files(path) as folder:
        added = VOXEL_FORMATS[suffix].write(voxels, folder / path.name, described)
        write_description(folder, path.name, {**described, **added})
    return path
