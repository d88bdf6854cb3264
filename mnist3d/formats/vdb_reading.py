"""OpenVDB files, read without OpenVDB: its Python modules end the process beside a NumPy they were not built for.

Grids of numbers in file formats 222 to 224 (OpenVDB 3 and newer), with any of its compressions. Level sets, masks,
points and transforms that are not linear are refused. The grid's values are what OpenVDB's `copyToArray` gives.

Source: OpenVDB (openvdb/io/Archive.cc, io/Compression.h, io/GridDescriptor.cc, tree/RootNode.h, InternalNode.h,
LeafNode.h, math/Maps.h: the members' `read`).
"""

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ..errors import VolumeFileError
from ..storage.optional import require
from .orientation import oriented_voxels
from .picking import COMPONENT, SPACE, Pick, picked_name, volume_index
from .vdb import LEAF, LOWER, LOWER_EDGE, MAGIC, UPPER, UPPER_EDGE
from .voxel_array import Voxels, check_shape

VERSIONS = range(222, 225)  # of the file format
ZIP, ACTIVE_ONLY, BLOSC = 1, 2, 4  # compression flags
BLOSC_SIZES = struct.Struct("<4xI4xI")  # a block's header, in which it tells how long it is unpacked and packed
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
# How a node's values are packed, of which OpenVDB has seven kinds: those with inactive values of their own, ...
INACTIVE_GIVEN = (2, 4, 5)
MASK_OF_INACTIVE, TWO_GIVEN, ALL_GIVEN, PLUS_BACKGROUND = (3, 4, 5), 5, 6, 0
SCALES = ("UniformScaleMap", "ScaleMap")
SCALES_AND_SHIFTS = ("UniformScaleTranslateMap", "ScaleTranslateMap")
MATRICES = ("AffineMap", "UnitaryMap")


class _Stream:
    """The bytes of a file, from a place on; what is not there raises."""

    def __init__(self, content: bytes, place: int = 0) -> None:
        self.content, self.place = content, place

    def take(self, count: int) -> bytes:
        part = self.content[self.place : self.place + count]
        if count < 0 or len(part) != count:
            raise ValueError("it ends too early")
        self.place += count
        return part

    def numbers(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))

    def integer(self, layout: str = "I") -> int:
        return self.numbers(layout)[0]

    def text(self) -> str:
        return self.take(self.integer()).decode("utf-8", "replace")

    def value(self, dtype: np.dtype) -> np.ndarray:
        """One voxel's: of no axis, or of components."""
        return np.frombuffer(self.take(dtype.itemsize), dtype).reshape(dtype.shape)

    def mask(self, count: int) -> Bool[np.ndarray, " N"]:
        return np.unpackbits(np.frombuffer(self.take(count // 8), np.uint8), bitorder="little").astype(bool)

    def metadata(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(self.integer()):
            name, kind, value = self.text(), self.text(), self.take(self.integer())
            found[name] = value.decode("utf-8", "replace") if kind == "string" else value
        return found


@dataclass(frozen=True)
class _Entry:
    """A grid in the file's table of them."""

    name: str
    kind: str
    parent: str
    place: int


@dataclass
class _Tree:
    """A grid's values: leaves of 8^3 voxels, and larger cubes of one value."""

    dtype: np.dtype
    background: np.ndarray
    corners: list[tuple[int, ...]] = field(default_factory=list)  # of the leaves, in the file's order
    masks: list[np.ndarray] = field(default_factory=list)
    leaves: list[np.ndarray] = field(default_factory=list)
    tiles: list[tuple[tuple[int, ...], int, np.ndarray, bool]] = field(default_factory=list)


def read_vdb(path: Path, pick: Pick) -> Voxels:
    """The grid attenuation, else density, else the first; and absorbance beside an attenuation.

    The box is that of the active voxels, or in a file of ours the whole volume.
    """
    stream = _Stream(path.read_bytes())
    entries, metadata = _table(path, stream)
    if not entries:
        raise VolumeFileError(f"{path}: holds no grid")
    names = [entry.name for entry in entries]
    main = picked_name(path, names, pick, ["attenuation", "density"])
    told = ["absorbance"] if main == "attenuation" and pick.array is None and "absorbance" in names else []
    box, channels, directions = None, [], np.eye(3)
    if "mnist3d" in metadata:  # empty voxels at the border are not stored, but belong to the box
        z, y, x = json.loads(metadata["mnist3d"])["resolution_zyx"]
        box = ((0, 0, 0), (x, z, y))  # right, away, up
    for name in (main, *told):
        entry = entries[names.index(name)]
        tree, turned = _grid(path, stream.content, entry, {each.name: each for each in entries})
        if box is None:
            box = _active_box(path, tree)
        directions = directions if channels else turned
        shape = [*box[1], *tree.dtype.shape]
        index = volume_index(
            path, shape, [SPACE] * 3 + [COMPONENT] * (len(shape) - 3), pick if name == main else Pick()
        )
        channels.append(_dense(tree, *box)[index])
    return oriented_voxels(path, channels, directions)


def _table(path: Path, stream: _Stream) -> tuple[list[_Entry], dict[str, Any]]:
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
    for _ in range(stream.integer("i")):
        name, kind, parent = stream.text(), stream.text(), stream.text()
        place, _, end = stream.numbers("qqq")
        if not 0 <= place <= end <= len(stream.content):
            raise ValueError("it ends too early")
        entries.append(_Entry(name.split(COPY)[0], kind, parent.split(COPY)[0], place))
        stream.place = end
    return entries, metadata


def _grid(
    path: Path, content: bytes, entry: _Entry, others: dict[str, _Entry]
) -> tuple[_Tree, Float[np.ndarray, "3 3"]]:
    """A grid's tree, and its directions: a column an axis."""
    stream = _Stream(content, entry.place)
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
            f"{path}#array={entry.name}: is a grid of type {kind}; must be one of {', '.join(NUMBERS)}"
        )
    if entry.parent:  # its tree is another grid's
        entry = others[entry.parent]
        stream = _Stream(content, entry.place)
        packing, _ = stream.integer(), stream.metadata()
        _directions(path, entry.name, stream)
    return _tree(stream, numbers[kind], half, packing, path), directions


def _directions(path: Path, name: str, stream: _Stream) -> Float[np.ndarray, "3 3"]:
    kind = stream.text()
    if kind in SCALES or kind in SCALES_AND_SHIFTS:
        vectors = np.array(stream.numbers("15d" if kind in SCALES else "18d")).reshape(-1, 3)
        return np.diag(vectors[0 if kind in SCALES else 1])
    if kind == "TranslationMap":
        stream.numbers("3d")
        return np.eye(3)
    if kind in MATRICES:  # OpenVDB multiplies rows
        return np.array(stream.numbers("16d")).reshape(4, 4)[:3, :3].T
    raise VolumeFileError(f"{path}#array={name}: its transform is a {kind}; must be linear")


def _tree(stream: _Stream, dtype: np.dtype, half: bool, packing: int, path: Path) -> _Tree:
    if stream.integer() != 1:
        raise ValueError("several buffers a leaf")
    unpack = _Unpacking(path, dtype, half, packing, stream.value(dtype))
    tree = _Tree(dtype, unpack.background)
    tiles, children = stream.numbers("II")
    for _ in range(tiles):
        corner = stream.numbers("3i")
        value = stream.value(dtype)
        tree.tiles.append((corner, UPPER_EDGE, value, bool(stream.integer("B"))))
    for _ in range(children):
        for lower in _children(stream, stream.numbers("3i"), UPPER, LOWER_EDGE, tree, unpack):
            for corner in _children(stream, lower, LOWER, LEAF, tree, unpack):
                tree.corners.append(corner)
                tree.masks.append(stream.mask(LEAF**3))
    for mask in tree.masks:
        stream.take(LEAF**3 // 8)  # the mask again
        tree.leaves.append(unpack(stream, LEAF**3, mask))
    return tree


def _children(
    stream: _Stream, corner: Sequence[int], edge: int, child_edge: int, tree: _Tree, unpack: "_Unpacking"
) -> Iterator[tuple[int, ...]]:
    """The first voxel of each child of a node; what the node itself holds goes into the tree."""
    has_child, active = stream.mask(edge**3), stream.mask(edge**3)
    values = unpack(stream, edge**3, active)
    differs = (values != tree.background).reshape(edge**3, -1).any(axis=1)
    for place in np.flatnonzero(~has_child & (active | differs)).tolist():
        tree.tiles.append((_corner(corner, place, edge, child_edge), child_edge, values[place], bool(active[place])))
    for place in np.flatnonzero(has_child).tolist():
        yield _corner(corner, place, edge, child_edge)


def _corner(corner: Sequence[int], place: int, edge: int, child_edge: int) -> tuple[int, ...]:
    """The first voxel of a node's child; x is the slowest."""
    inside = (place // edge**2, place // edge % edge, place % edge)
    return tuple(first + child_edge * step for first, step in zip(corner, inside, strict=True))


@dataclass(frozen=True)
class _Unpacking:
    """Reads the values of a node, as they were packed."""

    path: Path
    dtype: np.dtype
    half: bool
    packing: int
    background: np.ndarray

    def __call__(self, stream: _Stream, count: int, active: Bool[np.ndarray, " N"]) -> np.ndarray:
        kind = stream.integer("B")
        first, second = (self.background if kind == PLUS_BACKGROUND else -self.background), self.background
        if kind in INACTIVE_GIVEN:
            first = stream.value(self.dtype)
        if kind == TWO_GIVEN:
            second = stream.value(self.dtype)
        chosen = stream.mask(count) if kind in MASK_OF_INACTIVE else np.zeros(count, bool)
        partly = self.packing & ACTIVE_ONLY and kind != ALL_GIVEN
        stored = self._values(stream, int(active.sum()) if partly else count)
        if not partly:
            return stored
        values = np.empty((count, *self.dtype.shape), self.dtype.base)
        values[:] = first
        values[chosen] = second
        values[active] = stored
        return values

    def _values(self, stream: _Stream, count: int) -> np.ndarray:
        dtype = np.dtype(("<f2", self.dtype.shape)) if self.half else self.dtype
        if self.half and not count:
            return np.empty((0, *self.dtype.shape), self.dtype.base)
        size = count * dtype.itemsize
        content = stream.take(size) if not self.packing & (ZIP | BLOSC) else self._unpacked(stream, size)
        return np.frombuffer(content, dtype, count).astype(self.dtype.base)

    def _unpacked(self, stream: _Stream, size: int) -> bytes:
        packed = stream.integer("q")
        if packed <= 0:  # packing gained nothing
            return stream.take(-packed)
        content = stream.take(packed)
        if self.packing & BLOSC:
            blosc = require("numcodecs.blosc", f"{self.path}: reading it", "numcodecs", error=VolumeFileError)
            if packed < BLOSC_SIZES.size or BLOSC_SIZES.unpack_from(content) != (size, packed):
                raise ValueError("a block of another length")
            return blosc.decompress(content) if size else b""  # which it cannot unpack
        return zlib.decompressobj().decompress(content, size)


def _active_box(path: Path, tree: _Tree) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """First voxel and size of the box around the active voxels."""
    lows, highs = [], []
    if tree.masks:
        masks, corners = np.array(tree.masks).reshape(-1, LEAF, LEAF, LEAF), np.array(tree.corners)
        some = masks.any(axis=(1, 2, 3))
        for axis in range(3):
            along = np.asarray(masks.any(axis=tuple({1, 2, 3} - {axis + 1})))[some]
            if some.any():
                lows.append((corners[some, axis] + along.argmax(axis=1)).min())
                highs.append((corners[some, axis] + LEAF - along[:, ::-1].argmax(axis=1)).max())
    boxes = [(np.array(corner), np.array(corner) + edge) for corner, edge, _, active in tree.tiles if active]
    if lows:
        boxes.append((np.array(lows), np.array(highs)))
    if not boxes:
        raise VolumeFileError(f"{path}: holds no active voxel")
    first, last = np.min([low for low, _ in boxes], axis=0), np.max([high for _, high in boxes], axis=0)
    check_shape(path, (last - first).tolist())
    return tuple(first.tolist()), tuple((last - first).tolist())


def _dense(tree: _Tree, first: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """The values in a box, (x, y, z) and perhaps a component."""
    low, size, inner = np.array(first), np.array(shape), tree.dtype.shape
    begin = low // LEAF  # leaves begin at multiples of their edge, so whole ones cover the box
    counts = -(-(low + size) // LEAF) - begin
    blocks = np.empty((*counts, LEAF, LEAF, LEAF, *inner), tree.dtype.base)
    blocks[:] = tree.background
    if tree.corners:
        places = np.array(tree.corners) // LEAF - begin
        inside = ((places >= 0) & (places < counts)).all(axis=1)
        leaves = np.array(tree.leaves)[inside]
        blocks[tuple(places[inside].T)] = leaves.reshape(-1, LEAF, LEAF, LEAF, *inner)
    covering = blocks.swapaxes(2, 3).swapaxes(1, 2).swapaxes(3, 4).reshape(*counts * LEAF, *inner)
    array = covering[tuple(slice(s, s + n) for s, n in zip((low - begin * LEAF).tolist(), shape, strict=True))]
    for corner, edge, value, _ in tree.tiles:
        starts = np.maximum(np.array(corner) - low, 0)
        ends = np.maximum(np.minimum(np.array(corner) + edge - low, size), 0)
        array[tuple(slice(s, e) for s, e in zip(starts.tolist(), ends.tolist(), strict=True))] = value
    return array
