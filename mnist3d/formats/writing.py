"""The table of writers: a format by its suffix.

Which function writes which file, and what opens it. Each format has its own file here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .mrc import write_mrc
from .nifti import write_nifti
from .npz import write_npz
from .nrrd import write_nrrd
from .raw import write_raw
from .tiff import write_tif
from .vdb import write_vdb
from .vox import write_vox
from .vti import write_vti


@dataclass(frozen=True)
class VoxelFormat:
    """A voxel format.

    Args:
        write: called with the voxels (`Voxels`), the temporary file's path and a description; returns what the format
            adds to the description.
        opens_with: programs that read it.
        solid: every voxel is there or not, so `write` takes `level` too: from which attenuation on, per world unit.
        bytes_of_a_voxel: what `write` takes besides the voxels; 0 where it goes slice by slice.
    """

    write: Callable[..., dict[str, Any]]
    opens_with: str
    solid: bool = False
    bytes_of_a_voxel: int = 0


VOXEL_FORMATS: dict[str, VoxelFormat] = {
    ".npz": VoxelFormat(write_npz, "NumPy, mnist3d"),
    ".nrrd": VoxelFormat(write_nrrd, "3D Slicer, ParaView, ITK-SNAP, napari", bytes_of_a_voxel=4),
    ".nii.gz": VoxelFormat(write_nifti, "3D Slicer, ITK-SNAP, MRIcroGL, napari"),
    ".mrc": VoxelFormat(write_mrc, "ChimeraX, IMOD, napari", bytes_of_a_voxel=8),
    ".vti": VoxelFormat(write_vti, "ParaView, VTK, PyVista"),
    ".vdb": VoxelFormat(write_vdb, "Blender, Houdini, OpenVDB", bytes_of_a_voxel=4),
    ".vox": VoxelFormat(write_vox, "MagicaVoxel, Goxel", solid=True, bytes_of_a_voxel=12),
    ".raw": VoxelFormat(write_raw, "Unity, Unreal, Godot, WebGL as a 3D texture (layout: the .json)"),
    ".tif": VoxelFormat(write_tif, "ImageJ, Fiji, napari"),
}
