"""OpenVDB files, read without OpenVDB: its Python modules end the process beside a NumPy they were not built for.

Grids of numbers in file formats 222 to 224 (OpenVDB 3 and newer), with any of its compressions. Level sets, masks,
points and transforms that are not linear are refused. The grid's values are what OpenVDB's `copyToArray` gives.

Source: OpenVDB (openvdb/io/Archive.cc, io/GridDescriptor.cc, math/Maps.h: the members' `read`).
"""

import json
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import VolumeFileError, shown
from ..storage.plain_files import open_plain
from .orientation import oriented_voxels
from .picking import COMPONENT, SPACE, Pick, picked_name, volume_index
from .vdb import MAGIC
from .vdb_tree import Stream, Tree
from .voxel_array import Voxels

VERSIONS = range(222, 225)  # of the file format
MOST_GRIDS = 1000
NUMBERS = {
    "float": np.dtype("<f4"),
    "double": np.dtype("<f8"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
    "vec3s": np.dtype(("<f4", 3)),
    "vec3d": np.dtype(("<f8", 3)),
    "vec3i": np.dtype(("<i4", 3)),
}
HALF = "_HalfFloat"  # at the end of a grid's type: values are stored in 16 bits
COPY = "\x1e"  # between a grid's name and a number, where several have one name
SCALES = ("UniformScaleMap", "ScaleMap")
SCALES_AND_SHIFTS = ("UniformScaleTranslateMap", "ScaleTranslateMap")
MATRICES = ("AffineMap", "UnitaryMap")


@dataclass(frozen=True)
class _Entry:
    """A grid in the file's table of them."""

    name: str
    kind: str
    parent: str
    place: int


def read_vdb(path: Path, pick: Pick) -> Voxels:
    """The grid attenuation, else density, else the first; and absorbance beside an attenuation.

    The box is that of the active voxels, or in a file of ours the whole volume.
    """
    with open_plain(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _voxels(path, content, pick)


def _voxels(path: Path, content: mmap.mmap, pick: Pick) -> Voxels:
    entries, metadata = _table(path, Stream(content))
    if not entries:
        raise VolumeFileError(f"{path}: holds no grid")
    names = [entry.name for entry in entries]
    main = picked_name(path, names, pick, ["attenuation", "density"])
    told = ["absorbance"] if main == "attenuation" and pick.array is None and "absorbance" in names else []
    box, channels, directions = None, [], np.eye(3)
    if "mnist3d" in metadata:  # empty voxels at the border are not stored, but belong to the box
        z, y, x = (int(n) for n in json.loads(metadata["mnist3d"])["resolution_zyx"])
        box = ((0, 0, 0), (x, z, y))  # right, away, up
    for name in (main, *told):
        entry = entries[names.index(name)]
        tree, turned = _grid(path, content, entry, {each.name: each for each in entries})
        if box is None:
            box = tree.active_box()
        directions = directions if channels else turned
        shape = [*box[1], *tree.dtype.shape]
        index = volume_index(
            path, shape, [SPACE] * 3 + [COMPONENT] * (len(shape) - 3), pick if name == main else Pick()
        )
        component = index[3] if len(index) > 3 else None
        channels.append(tree.dense(*box, component if isinstance(component, int) else None))
    return oriented_voxels(path, channels, directions)


def _table(path: Path, stream: Stream) -> tuple[list[_Entry], dict[str, Any]]:
    magic, version = stream.numbers("qI")
    if magic != MAGIC:
        raise ValueError("it does not begin as an OpenVDB file")
    if version not in VERSIONS:
        raise VolumeFileError(
            f"{path}: is of OpenVDB's file format {version}; must be {VERSIONS[0]} to {VERSIONS[-1]}: write it again "
            "with OpenVDB 3 to 13"
        )
    *_, offsets = stream.numbers("IIB")
    stream.take(36)  # a UUID
    metadata = stream.metadata()
    if not offsets:
        raise VolumeFileError(f"{path}: is a stream without a table of its grids; write it as a file")
    entries = []
    if (number := stream.integer("i")) > MOST_GRIDS:
        raise ValueError(f"{number:,} grids")
    for _ in range(number):
        name, kind, parent = stream.text(), stream.text(), stream.text()
        place, _, end = stream.numbers("qqq")
        if not stream.place <= place <= end <= len(stream.content):
            raise ValueError("it ends too early")
        entries.append(_Entry(name.split(COPY)[0], kind, parent.split(COPY)[0], place))
        stream.place = end
    return entries, metadata


def _grid(
    path: Path, content: mmap.mmap, entry: _Entry, others: dict[str, _Entry]
) -> tuple[Tree, Float[np.ndarray, "3 3"]]:
    """A grid's tree, and its directions: a column an axis."""
    stream = Stream(content, entry.place)
    packing, metadata = stream.integer(), stream.metadata()
    directions = _directions(path, entry.name, stream)
    if metadata.get("class") == "level set":
        raise VolumeFileError(
            f"{path}#array={entry.name}: is a level set (distances to a surface); must be a fog volume: convert it in "
            "the tool that made it"
        )
    kind, half = entry.kind.removesuffix(HALF), entry.kind.endswith(HALF)
    numbers = {f"Tree_{name}_5_4_3": dtype for name, dtype in NUMBERS.items()}
    if kind not in numbers:
        raise VolumeFileError(
            f"{path}#array={entry.name}: is a grid of type {shown(kind)}; must be one of {', '.join(NUMBERS)}"
        )
    if entry.parent:  # its tree is another grid's
        entry = others[entry.parent]
        stream = Stream(content, entry.place)
        packing, _ = stream.integer(), stream.metadata()
        _directions(path, entry.name, stream)
    return Tree(path, content, stream.place, numbers[kind], half, packing), directions


def _directions(path: Path, name: str, stream: Stream) -> Float[np.ndarray, "3 3"]:
    kind = stream.text()
    if kind in SCALES or kind in SCALES_AND_SHIFTS:
        vectors = np.array(stream.numbers("15d" if kind in SCALES else "18d")).reshape(-1, 3)
        return np.diag(vectors[0 if kind in SCALES else 1])
    if kind == "TranslationMap":
        stream.numbers("3d")
        return np.eye(3)
    if kind in MATRICES:  # OpenVDB multiplies rows
        return np.array(stream.numbers("16d")).reshape(4, 4)[:3, :3].T
    raise VolumeFileError(f"{path}#array={name}: its transform is a {shown(kind)}; must be linear")
