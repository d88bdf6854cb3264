"""NumPy: .npz with both channels as the library holds them, and plain .npy arrays, which are read only."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import VolumeFileError
from ..invocation import program_name
from .picking import FRAME, SPACE, Pick, check_numbers, picked_name, volume_index
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


def read_npz(path: Path, pick: Pick) -> Voxels:
    """Both channels, as `write_npz` left them; or one array, picked by its name, as `read_npy` takes it."""
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:  # which leaves a damaged file open
        if pick.array is not None:
            name = picked_name(path, file.files, pick, ())
            return _plain(path, *_npy_header(file, name), lambda: file[name], pick)
        missing = {"attenuation", "absorbance", "spacing_xyz"} - set(file.files)
        if missing:
            raise VolumeFileError(
                f"{path}: holds no {', '.join(sorted(missing))}; {program_name('voxels')} writes them, and "
                f"{path}#array=NAME takes one array ({', '.join(file.files) or 'it has none'})"
            )
        for name in ("attenuation", "absorbance"):  # from the header, before a small file fills the memory
            shape, dtype = _npy_header(file, name)
            check_numbers(path, dtype)
            volume_index(path, shape, [SPACE] * len(shape), pick)
        return file_voxels(path, [file["attenuation"], file["absorbance"]], file["spacing_xyz"].tolist())


def read_npy(path: Path, pick: Pick) -> Voxels:
    """A plain array in the library's own axes: (Z, Y, X) is attenuation, (2, Z, Y, X) attenuation and absorbance."""
    with path.open("rb") as file:
        shape, dtype = _header(file)
    return _plain(path, shape, dtype, lambda: np.load(path, allow_pickle=False), pick)


def _plain(path: Path, shape: tuple[int, ...], dtype: np.dtype, read: Callable[[], np.ndarray], pick: Pick) -> Voxels:
    """Voxels of an array without axes or lengths: cubes."""
    check_numbers(path, dtype)
    if len(shape) == 4 and shape[0] == 2 and pick.frame is None and pick.component is None:  # both channels
        check_shape(path, shape[1:])
        return file_voxels(path, list(read()), [1.0] * 3)
    roles = [FRAME, SPACE, SPACE, SPACE] if len(shape) == 4 else [SPACE] * len(shape)
    index = volume_index(path, shape, roles, pick)
    return file_voxels(path, [read()[index]], [1.0] * 3)


def _npy_header(file: Any, name: str) -> tuple[tuple[int, ...], np.dtype]:
    with file.zip.open(f"{name}.npy") as member:
        return _header(member)


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of a .npy; version 3 has the header of version 2, in UTF-8."""
    major, _ = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype
