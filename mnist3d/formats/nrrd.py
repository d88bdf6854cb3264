"""NRRD, a file a channel."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import VolumeFileError
from ..storage.optional import require
from .voxel_array import UPRIGHT_AXES, Voxels, channel_files, check_shape, layout, patient_voxels, upright_xyz


def write_nrrd(voxels: Voxels, path: Path, description: dict[str, Any]) -> dict[str, Any]:
    """NRRD, a file a channel: VTK and ParaView misread several channels in one."""
    nrrd = require("nrrd", ".nrrd", "pynrrd")
    for channel, array, file in channel_files(voxels, path, ".nrrd"):
        header = {
            "space": "left-posterior-superior",
            "space directions": np.diag(upright_xyz(voxels.spacing)),
            "space origin": np.array(upright_xyz(voxels.origin)),
            "kinds": ["domain"] * 3,
            "encoding": "raw",
            "channel": channel,
            "mnist3d": json.dumps(description),
        }
        if voxels.unit == "mm":
            header["space units"] = ["mm"] * 3
        nrrd.write(str(file), np.ascontiguousarray(array), header, index_order="C")
    return layout(voxels, f"upright: {UPRIGHT_AXES}; stored x fastest; space left-posterior-superior")


# How each of NRRD's spaces is turned into left, posterior, superior.
SPACES = {
    "left-posterior-superior": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "3d-right-handed": (1, 1, 1),
    "lps": (1, 1, 1),
    "ras": (-1, -1, 1),
    "las": (1, -1, 1),
}


def read_nrrd(path: Path) -> Voxels:
    """One channel, turned as its space and its directions say."""
    nrrd = require("nrrd", f"{path}: reading it", "pynrrd", error=VolumeFileError)
    with path.open("rb") as file:
        header = nrrd.read_header(file)
        if {"data file", "datafile"} & {str(key).lower() for key in header}:
            raise VolumeFileError(f"{path}: its voxels lie in another file; write both into one .nrrd")
    if len(header["sizes"]) == 3:
        check_shape(path, header["sizes"].tolist())
    data, header = nrrd.read(str(path), index_order="F")
    directions = header.get("space directions")
    if directions is None:
        directions = np.diag(np.abs(header.get("spacings", np.ones(data.ndim))))
    space = str(header.get("space", "left-posterior-superior")).lower()
    if data.ndim != 3 or space not in SPACES:
        raise VolumeFileError(f"{path}: {data.ndim} axes in space {space}; it must be one channel on 3 axes in space")
    return patient_voxels(path, data, np.diag(SPACES[space]) @ np.asarray(directions, float).T)
