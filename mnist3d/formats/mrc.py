"""MRC2014, a file a channel."""

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import VolumeFileError
from ..storage.optional import require
from .voxel_array import (
    UPRIGHT_AXES,
    Voxels,
    channel_files,
    check_shape,
    file_voxels,
    from_upright,
    layout,
    upright_xyz,
)


def write_mrc(voxels: Voxels, path: Path, description: dict[str, Any]) -> dict[str, Any]:
    """MRC2014, a file a channel; the format knows only angstrom, so an angstrom stands for the unit of length."""
    mrcfile = require("mrcfile", ".mrc")
    for channel, array, file in channel_files(voxels, path, ".mrc"):
        with mrcfile.new(str(file)) as mrc:
            mrc.set_data(np.ascontiguousarray(array))
            mrc.voxel_size = upright_xyz(voxels.spacing)
            mrc.header.origin = upright_xyz(voxels.origin)
            mrc.set_volume()
            mrc.add_label(f"mnist3d {channel}; 1 angstrom stands for 1 {voxels.unit}; x right, y away, z up")
            if run := description.get("run"):
                mrc.add_label(f"run {run}, step {description.get('step')}"[:80])
    return layout(voxels, f"upright: {UPRIGHT_AXES}; an angstrom stands for a {voxels.unit}")


def read_mrc(path: Path) -> Voxels:
    """One channel, whichever of its axes is x, y and z."""
    mrcfile = require("mrcfile", f"{path}: reading it", error=VolumeFileError)
    with mrcfile.open(str(path), permissive=False, header_only=True) as mrc:
        check_shape(path, [int(mrc.header[name]) for name in ("nx", "ny", "nz")])
    with mrcfile.open(str(path), permissive=False) as mrc:
        axes = [int(mrc.header[name]) for name in ("mapc", "mapr", "maps")]  # which of x, y, z each stored axis is
        stored = np.array(mrc.data, np.float32).transpose(2, 1, 0)
        data = stored.transpose(np.argsort(axes))
        size = mrc.voxel_size
    spacing = upright_xyz((float(size.x), float(size.y), float(size.z)))
    return file_voxels(path, [from_upright(data.transpose(2, 1, 0))], spacing)
