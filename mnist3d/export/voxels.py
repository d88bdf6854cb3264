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

from ..volumes.base import Volume
from . import voxel_writers
from .files import check_output, whole_files, write_description
from .sampling import Voxels, as_voxels
from .vdb import write_vdb
from .vox import write_vox


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
    ".npz": VoxelFormat(voxel_writers.write_npz, "NumPy, mnist3d"),
    ".nrrd": VoxelFormat(voxel_writers.write_nrrd, "3D Slicer, ParaView, ITK-SNAP, napari"),
    ".nii.gz": VoxelFormat(voxel_writers.write_nifti, "3D Slicer, ITK-SNAP, MRIcroGL, napari"),
    ".mrc": VoxelFormat(voxel_writers.write_mrc, "ChimeraX, IMOD, napari"),
    ".vti": VoxelFormat(voxel_writers.write_vti, "ParaView, VTK, PyVista"),
    ".vdb": VoxelFormat(write_vdb, "Blender, Houdini, OpenVDB"),
    ".vox": VoxelFormat(write_vox, "MagicaVoxel, Goxel"),
    ".raw": VoxelFormat(voxel_writers.write_raw, "Unity, Unreal, Godot, WebGL as a 3D texture (layout: the .json)"),
    ".tif": VoxelFormat(voxel_writers.write_tif, "ImageJ, Fiji, napari"),
}


def export_voxels(
    volume: Volume | ArrayLike,
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
