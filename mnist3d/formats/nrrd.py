"""NRRD, a file a channel; its detached header (.nhdr) is read too."""

import json
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float

from ..errors import VolumeFileError, shown
from ..storage.inflating import Inflated
from ..storage.optional import require
from ..storage.plain_files import Readable, open_plain, size_in_words
from .contents import (
    HEADER_BYTES,
    MOST_BYTES,
    ByteOrder,
    Claim,
    Numerals,
    count,
    first_fastest,
    read_packed_claim,
    read_plain_claim,
    size_of,
)
from .orientation import oriented_voxels
from .picking import COMPONENT, FRAME, SPACE, Pick, volume_index
from .voxel_array import UPRIGHT_AXES, Voxels, channel_files, layout, upright_xyz


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
        nrrd.write(str(file), array, header, index_order="C")
    return layout(voxels, f"upright: {UPRIGHT_AXES}; stored x fastest; space left-posterior-superior")


# How each of NRRD's spaces is turned into left, posterior, superior. The axes of "3D-..." and "scanner-..." have no
# place in a patient: they are taken as x right, y away, z up, and in a left-handed space y comes nearer.
SPACES = {
    "left-posterior-superior": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "scanner-xyz": (1, 1, 1),
    "3d-right-handed": (1, 1, 1),
    "3d-left-handed": (1, -1, 1),
    "lps": (1, 1, 1),
    "ras": (-1, -1, 1),
    "las": (1, -1, 1),
}
IN_SPACE = {"domain", "space"}
TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "signed long long int"), "i8"),
    **dict.fromkeys(("int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}
ENDIAN: dict[str, ByteOrder] = {"little": "<", "big": ">"}
MOST_LINES = 10**6  # before the voxels
TEXT = ("ASCII", "ascii", "text", "txt")
PACKED = {"gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
VECTORS = ("vector", "color", "point", "normal", "gradient", "matrix", "quaternion")  # in the kinds of an axis


def read_nrrd(path: Path, pick: Pick) -> Voxels:
    """One channel, turned as its space and its directions say; .nhdr has its voxels in a file in the same folder.

    pynrrd takes the header apart; the voxels are read here, as it would unpack all that is there.

    Source: teem's "Definition of NRRD File Format", sections on space, kinds and per-axis fields.
    """
    nrrd = require("nrrd", f"{path}: reading it", "pynrrd", error=VolumeFileError)
    with open_plain(path) as file:
        lines = _header_lines(file)
        header = nrrd.read_header(lines)
        begin = file.tell()
    for needed in ("dimension", "type", "encoding", "sizes"):
        if needed not in header:
            raise VolumeFileError(f"{path}: damaged: its header has no {needed}")
    shape = [int(n) for n in header["sizes"]]
    if len(shape) != header["dimension"]:
        raise VolumeFileError(f"{path}: damaged: it has {len(shape)} sizes, but a dimension of {header['dimension']}")
    data_file = _data_file(path, header)
    directions, in_space = _directions(path, header, len(shape))
    kinds = [str(kind).lower() for kind in header.get("kinds", ["???"] * len(shape))]
    if "complex" in kinds:
        raise VolumeFileError(
            f"{path}: holds complex numbers; must be one real number a voxel: write their magnitude in the tool that "
            "made it"
        )
    roles = [
        SPACE if spatial else COMPONENT if any(word in kind for word in VECTORS) else FRAME
        for spatial, kind in zip(in_space, kinds, strict=True)
    ]
    index = volume_index(path, shape, roles, pick)
    dtype = _dtype(path, header)
    claim = first_fastest(path, shape, dtype, index)
    with open_plain(data_file or path) as file:
        file.seek(0 if data_file else begin)
        return oriented_voxels(path, [_voxels(claim, header, file).T], directions)


def _header_lines(file: BinaryIO) -> list[str]:
    """The header's lines, up to the empty one behind them; the file is left there."""
    content = file.read(HEADER_BYTES)
    end = re.search(rb"\r?\n\s*?\n", content)
    if end is None and len(content) == HEADER_BYTES:
        raise ValueError(f"its header is longer than {size_in_words(HEADER_BYTES)}")
    file.seek(len(content) if end is None else end.end())
    return content[: None if end is None else end.start()].decode("ascii", "ignore").split("\n")


def _dtype(path: Path, header: dict[str, Any]) -> np.dtype:
    name = str(header["type"])
    if name not in TYPES:
        raise VolumeFileError(f"{path}: its type is {shown(name)}; must be integers or real numbers")
    dtype = np.dtype(TYPES[name])
    if dtype.itemsize == 1 or header["encoding"] in TEXT:
        return dtype
    endian = header.get("endian")
    if endian not in ENDIAN:
        raise VolumeFileError(f"{path}: its endian is {shown(endian)}; must be little or big")
    return dtype.newbyteorder(ENDIAN[endian])


def _voxels(claim: Claim, header: dict[str, Any], file: BinaryIO) -> np.ndarray:
    """The volume that is picked; the file stands at the begin of the data, before what is to be skipped."""
    lines, skipped = (
        int(header.get(name.replace(" ", ""), header.get(name, 0))) for name in ("line skip", "byte skip")
    )
    encoding = str(header["encoding"])
    if lines < 0 or skipped < -1:
        raise ValueError("it skips a negative number of lines or bytes")
    if lines > MOST_LINES:
        raise ValueError(f"it skips more than {MOST_LINES:,} lines")
    for _ in range(lines):
        while not (line := file.readline(HEADER_BYTES)).endswith(b"\n"):
            if not line:
                raise ValueError("it ends too early")
    begin = file.tell()
    if encoding == "raw":
        held = size_of(file)
        if skipped < 0:
            return read_plain_claim(claim, file, held - claim.size)
        if claim.size < held - begin - skipped:
            raise ValueError("it holds more than its header claims")
        return read_plain_claim(claim, file, begin + skipped)
    if encoding not in (*TEXT, *PACKED):
        raise ValueError(f"its encoding is {shown(encoding)}; must be raw, ascii, gzip or bzip2")

    def unpacked() -> Readable:
        file.seek(begin + (max(skipped, 0) if encoding in TEXT else 0))
        return Numerals(file, claim.dtype) if encoding in TEXT else Inflated(file, PACKED[encoding], MOST_BYTES)

    if encoding in TEXT:
        return read_packed_claim(claim, unpacked, whole=True)
    if skipped < 0:  # the array is the end of what is there
        skipped = count(unpacked()) - claim.size
        if skipped < 0:
            raise ValueError("it ends too early")
    return read_packed_claim(claim, unpacked, skipped, whole=True)


def _data_file(path: Path, header: dict[str, Any]) -> Path | None:
    """A file that is somebody else's must not be read by a header's word: only one beside it, or below."""
    named = [value for key, value in header.items() if str(key).lower() in ("data file", "datafile")]
    if not named:
        return None
    folder, name = path.parent.resolve(), str(named[0])
    if name.split()[:1] == ["LIST"] or "%" in name:
        raise VolumeFileError(f"{path}: its voxels lie in several files ({shown(name)}); write all into one .nrrd")
    data = (folder / name).resolve()
    if not data.is_relative_to(folder):
        raise VolumeFileError(f"{path}: its voxels lie in another folder ({shown(name)}); must be in the header's own")
    if not data.exists():
        raise VolumeFileError(f"{path}: its voxels lie in {shown(name)}, which is not beside it")
    return data


def _directions(path: Path, header: dict[str, Any], axes: int) -> tuple[Float[np.ndarray, "3 N"], list[bool]]:
    """The step along each axis in space, a column each, and which of the file's axes those are."""
    space = str(header.get("space", "left-posterior-superior")).lower()
    if space not in SPACES:
        raise VolumeFileError(f"{path}: its space is {space}; must be one of {', '.join(SPACES)}")
    given = header.get("space directions")
    if given is not None:
        rows = [np.full(3, np.nan) if row is None else np.asarray(row, float) for row in given]
        in_space = [not np.isnan(row).any() for row in rows]  # `none` where an axis is not in space
        vectors = [row for row, spatial in zip(rows, in_space, strict=True) if spatial]
        if any(len(row) != 3 for row in vectors):
            raise VolumeFileError(f"{path}: its space has {len(vectors[0])} dimensions; must have 3")
        return np.diag(SPACES[space]) @ np.array(vectors).reshape(-1, 3).T, in_space
    kinds, told = [str(kind).lower() for kind in header.get("kinds", ())], _steps(header, axes)
    in_space = [True] * axes
    if axes > 3:  # a distance that is no number is that of an axis which is not in space
        in_space = [kind in IN_SPACE for kind in kinds] if len(kinds) == axes else (~np.isnan(told)).tolist()
        if not kinds and all(in_space):
            raise VolumeFileError(
                f"{path}: has {axes} axes, and nothing says which three are in space; must say it in its header, as "
                "`kinds: domain domain domain list` (a list of volumes) or `kinds: vector domain domain domain`"
            )
    steps = np.array([step for step, spatial in zip(told, in_space, strict=True) if spatial])
    steps = np.where(np.isfinite(steps) & (steps != 0.0), steps, 1.0)
    return np.diag(SPACES[space]) @ np.eye(3, len(steps)) * steps, in_space


def _steps(header: dict[str, Any], axes: int) -> Float[np.ndarray, " N"]:
    """The distance along each axis; of `axis mins` and `axis maxs` where it is not told."""
    if "spacings" in header:
        return np.asarray(header["spacings"], float)
    low, high = (header.get(f"axis {end}", header.get(f"axis{end}")) for end in ("mins", "maxs"))
    if low is None or high is None:
        return np.ones(axes)
    nodes = [str(each).lower() == "node" for each in header.get("centerings", ["cell"] * axes)]
    return (np.asarray(high, float) - np.asarray(low, float)) / (np.asarray(header["sizes"]) - np.array(nodes))
