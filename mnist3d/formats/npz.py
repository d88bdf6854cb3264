"""NumPy's .npz: both channels as the library holds them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import VolumeFileError
from ..invocation import program_name
from .voxel_array import Voxels, check_shape, file_voxels, layout


def write_npz(voxels: Voxels, path: Path, description: dict[str, Any]) -> dict[str, Any]:
    """NumPy: both channels as the library holds them, with axes, spacing, origin and units inside."""
    described = layout(voxels, "(Z, Y, X); x right, y down, z away from the viewer", turned=False)
    with open(path, "wb") as file:
        np.savez(
            file,
            attenuation=voxels.attenuation,
            absorbance=voxels.absorbance,
            axes=np.array("ZYX"),
            spacing_xyz=np.array(voxels.spacing),
            origin_xyz=np.array(voxels.origin),
            unit=np.array(voxels.unit),
            attenuation_unit=np.array(f"1 / {voxels.unit}"),
            description=np.array(json.dumps(description)),
        )
    return described


def read_npz(path: Path) -> Voxels:
    """Both channels, as `write_npz` left them."""
    with np.load(path, allow_pickle=False) as file:
        missing = {"attenuation", "absorbance", "spacing_xyz"} - set(file.files)
        if missing:
            raise VolumeFileError(
                f"{path}: holds no {', '.join(sorted(missing))}; {program_name('voxels')} writes them"
            )
        for name in ("attenuation", "absorbance"):  # from the header, before a small file fills the memory
            check_shape(path, _npy_shape(file, name))
        return file_voxels(path, [file["attenuation"], file["absorbance"]], file["spacing_xyz"].tolist())


def _npy_shape(file: Any, name: str) -> tuple[int, ...]:
    formats = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with file.zip.open(f"{name}.npy") as member:
        return formats[np.lib.format.read_magic(member)](member)[0]
