"""NumPy: .npz with both channels as the library holds them, and plain .npy arrays, which are read only."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any, BinaryIO, cast
from zipfile import ZipExtFile, ZipFile

import numpy as np

from ..errors import VolumeFileError, shown
from ..invocation import program_name
from ..storage.inflating import opened_zip
from ..storage.plain_files import Readable, open_plain
from .contents import Claim, exactly, first_fastest, read_packed_claim, read_plain_claim
from .picking import FRAME, SPACE, Pick, check_numbers, picked_name, volume_index
from .voxel_array import Voxels, file_voxels, layout

NPY = ".npy"  # at the end of each name in the archive
NPY_HEADER = 10_000  # bytes; NumPy's own limit, which it looks at only when all of them are read


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
    with open_plain(path) as opened, opened_zip(cast("BufferedReader", opened)) as archive:
        names = [name.removesuffix(NPY) for name in archive.namelist()]
        if pick.array is not None:
            name = picked_name(path, names, pick, ())
            with _member(archive, name) as member:
                return _plain(path, member, pick, packed=partial(_member, archive, name))
        missing = {"attenuation", "absorbance", "spacing_xyz"} - set(names)
        if missing:
            raise VolumeFileError(
                f"{path}: holds no {', '.join(sorted(missing))}; {program_name('voxels')} writes them, and "
                f"{path}#array=NAME takes one array ({shown(', '.join(names)) or 'it has none'})"
            )
        channels = [_channel(path, archive, name, pick) for name in ("attenuation", "absorbance")]
        return file_voxels(path, channels, _spacing(path, archive))


def read_npy(path: Path, pick: Pick) -> Voxels:
    """A plain array in the library's own axes: (Z, Y, X) is attenuation, (2, Z, Y, X) attenuation and absorbance."""
    with open_plain(path) as file:
        return _plain(path, file, pick)


def _plain(path: Path, file: Readable, pick: Pick, packed: Callable[[], Readable] | None = None) -> Voxels:
    """Voxels of an array without axes or lengths: cubes.

    Args:
        path: for messages.
        file: at its begin.
        pick: what was asked for.
        packed: opens the array anew, in an archive; None: the file is not packed.
    """
    shape, dtype, order, begin = _header(file)
    check_numbers(path, dtype)
    both = len(shape) == 4 and shape[0] == 2 and pick.frame is None and pick.component is None
    roles = [FRAME, SPACE, SPACE, SPACE] if len(shape) == 4 else [SPACE] * len(shape)
    picks = [replace(pick, frame=frame) for frame in range(2)] if both else [pick]
    channels = []
    for each in picks:
        index = volume_index(path, shape, roles, each)
        claim = order(path, shape, dtype, index)
        if packed is None:
            found = read_plain_claim(claim, cast("BinaryIO", file), begin)
        else:
            found = read_packed_claim(claim, packed, begin)
        channels.append(found if order is Claim else found.T)
    return file_voxels(path, channels, [1.0] * 3)


def _channel(path: Path, archive: ZipFile, name: str, pick: Pick) -> np.ndarray:
    with _member(archive, name) as member:
        shape, dtype, order, begin = _header(member)
    check_numbers(path, dtype)
    claim = order(path, shape, dtype, volume_index(path, shape, [SPACE] * len(shape), pick))
    found = read_packed_claim(claim, partial(_member, archive, name), begin)
    return found if order is Claim else found.T


def _spacing(path: Path, archive: ZipFile) -> list[float]:
    with _member(archive, "spacing_xyz") as member:
        shape, dtype, _, _ = _header(member)
        check_numbers(path, dtype)
        if shape != (3,):
            raise VolumeFileError(f"{path}: spacing_xyz has shape {shape}; must be (3,)")
        return np.frombuffer(exactly(member, 3 * dtype.itemsize), dtype).astype(float).tolist()


def _member(archive: ZipFile, name: str) -> ZipExtFile:
    return cast("ZipExtFile", archive.open(name if name in archive.NameToInfo else f"{name}{NPY}"))


def _header(file: Readable) -> tuple[tuple[int, ...], np.dtype, Callable[..., Claim], int]:
    """Shape, type, order and length in bytes of a .npy's header; version 3 has that of version 2, in UTF-8.

    Raises:
        ValueError: it is none, or longer than any array of numbers needs.
    """
    begin = exactly(file, 8)
    major, _ = np.lib.format.read_magic(BytesIO(begin))
    width = 2 if major == 1 else 4
    told = exactly(file, width)
    length = int.from_bytes(told, "little")
    if length > NPY_HEADER:
        raise ValueError(f"its header is {length:,} bytes long")
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, first_is_fastest, dtype = read(BytesIO(told + exactly(file, length)))
    return shape, dtype, first_fastest if first_is_fastest else Claim, len(begin) + width + length
