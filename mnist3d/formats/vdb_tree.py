"""The values of an OpenVDB grid: its tree is walked twice, for the box that is filled and for what fills it.

Nothing is gathered on the way but the places of the leaves: a few bytes of a node can stand for 32^3 cubes of one
value each.

Source: OpenVDB (openvdb/io/Compression.h, tree/RootNode.h, InternalNode.h, LeafNode.h: the members' `read`).
"""

import math
import mmap
import struct
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ..errors import VolumeFileError
from ..storage.optional import require
from .contents import COUNTED
from .vdb import LEAF, LOWER, LOWER_EDGE, UPPER, UPPER_EDGE
from .voxel_array import check_growth, check_shape

ZIP, ACTIVE_ONLY, BLOSC = 1, 2, 4  # compression flags
BLOSC_SIZES = struct.Struct("<4xI4xI")  # a block's header, in which it tells how long it is unpacked and packed
MASK = LEAF**3 // 8  # bytes
LEAVES_AT_ONCE = 4096  # whose masks are looked at together
LONGEST_TEXT, MOST_METADATA = 2**24, 10_000
# How a node's values are packed, of which OpenVDB has seven kinds: those with inactive values of their own, ...
INACTIVE_GIVEN = (2, 4, 5)
MASK_OF_INACTIVE, TWO_GIVEN, ALL_GIVEN, PLUS_BACKGROUND = (3, 4, 5), 5, 6, 0


class Stream:
    """The bytes of a file, from a place on; what is not there raises."""

    def __init__(self, content: mmap.mmap, place: int = 0) -> None:
        self.content, self.place = content, place

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if not 0 <= count <= len(self.content) - self.place:
            raise ValueError("it ends too early")
        self.place += count
        return self.content[self.place - count : self.place]

    def numbers(self, layout: str) -> tuple[Any, ...]:
        """As `struct` unpacks them."""
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))

    def integer(self, layout: str = "I") -> int:
        """One number."""
        return self.numbers(layout)[0]

    def text(self) -> str:
        """Text with its length before it."""
        return self._short().decode("utf-8", "replace")

    def value(self, dtype: np.dtype) -> np.ndarray:
        """One voxel's: of no axis, or of components."""
        return np.frombuffer(self.take(dtype.itemsize), dtype).reshape(dtype.shape)

    def mask(self, count: int) -> Bool[np.ndarray, " N"]:
        """A bit a place."""
        return np.unpackbits(np.frombuffer(self.take(count // 8), np.uint8), bitorder="little").astype(bool)

    def metadata(self) -> dict[str, Any]:
        """Name -> text, or bytes of what else it is."""
        found: dict[str, Any] = {}
        if (number := self.integer()) > MOST_METADATA:
            raise ValueError(f"{number:,} entries of metadata")
        for _ in range(number):
            name, kind, value = self.text(), self.text(), self._short()
            found[name] = value.decode("utf-8", "replace") if kind == "string" else value
        return found

    def _short(self) -> bytes:
        if (length := self.integer()) > LONGEST_TEXT:
            raise ValueError(f"a text of {length:,} bytes")
        return self.take(length)


@dataclass(frozen=True)
class Tiles:
    """Cubes of one value each, the edge the same: (N, 3) first voxels, values, and which are active."""

    corners: np.ndarray
    edge: int
    values: np.ndarray
    active: np.ndarray


@dataclass(frozen=True)
class Tree:
    """Where a grid's tree lies in the file, and what its values are.

    Args:
        path: for messages.
        content: the file.
        place: of the tree in it, in bytes.
        dtype: of a voxel.
        half: whether it is stored in 16 bits.
        packing: the compression flags.
    """

    path: Path
    content: mmap.mmap
    place: int
    dtype: np.dtype
    half: bool
    packing: int

    def active_box(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """First voxel and size of the box around the active voxels, along x, y, z.

        Raises:
            VolumeFileError: there are none, or the box is too large.
        """
        low, high = np.full(3, np.iinfo(np.int64).max), np.full(3, np.iinfo(np.int64).min)
        waiting: list[tuple[tuple[int, ...], bytes]] = []

        def look(firsts: np.ndarray, lasts: np.ndarray) -> None:
            np.minimum(low, firsts.min(axis=0), out=low)
            np.maximum(high, lasts.max(axis=0), out=high)

        def look_at_leaves() -> None:
            corners = np.array([corner for corner, _ in waiting], np.int64).reshape(-1, 3)
            packed = np.frombuffer(b"".join(mask for _, mask in waiting), np.uint8)
            masks = np.unpackbits(packed, bitorder="little").reshape(-1, LEAF, LEAF, LEAF)
            some = masks.any(axis=(1, 2, 3))
            if some.any():
                along = [np.asarray(masks.any(axis=tuple({1, 2, 3} - {axis})))[some] for axis in (1, 2, 3)]
                firsts = corners[some] + np.stack([each.argmax(axis=1) for each in along], axis=1)
                lasts = corners[some] + LEAF - np.stack([each[:, ::-1].argmax(axis=1) for each in along], axis=1)
                look(firsts, lasts)
            waiting.clear()

        for found in self._walk(Stream(self.content, self.place)):
            if isinstance(found, Tiles):
                if found.active.any():
                    corners = found.corners[found.active]
                    look(corners, corners + found.edge)
            else:
                waiting.append(found)
                if len(waiting) == LEAVES_AT_ONCE:
                    look_at_leaves()
        look_at_leaves()
        if (low > high).any():
            raise VolumeFileError(f"{self.path}: holds no active voxel")
        check_shape(self.path, (high - low).tolist())
        return tuple(low.tolist()), tuple((high - low).tolist())

    def dense(self, first: Sequence[int], shape: Sequence[int], component: int | None) -> Float[np.ndarray, "X Y Z"]:
        """The values in a box.

        Args:
            first: its first voxel, along x, y, z.
            shape: its size.
            component: which number of a vector; None where a voxel has one.
        """
        check_growth(self.path, shape, shape, "it")
        if 4 * math.prod(shape) > COUNTED:
            self._check_leaves()
        stream = Stream(self.content, self.place)
        unpack = self._unpacking(stream)
        stream.place = self.place
        low, size = np.array(first, np.int64), np.array(shape, np.int64)
        values = np.full(tuple(shape), _picked(unpack.background, component), np.float32)
        corners = array("q")
        for found in self._walk(stream):
            if not isinstance(found, Tiles):
                corners.extend(found[0])
                continue
            starts = np.maximum(found.corners - low, 0)
            ends = np.minimum(found.corners + found.edge - low, size)
            for k in np.flatnonzero((starts < ends).all(axis=1)).tolist():
                where = tuple(slice(s, e) for s, e in zip(starts[k].tolist(), ends[k].tolist(), strict=True))
                values[where] = _picked(found.values[k : k + 1], component)
        places = np.frombuffer(corners, np.int64).reshape(-1, 3) - low if corners else np.empty((0, 3), np.int64)
        whole = np.asarray(((places >= 0) & (places + LEAF <= size)).all(axis=1))
        for (x, y, z), inside in zip(places.tolist(), whole.tolist(), strict=True):
            mask = stream.mask(LEAF**3)
            leaf = _picked(unpack(stream, LEAF**3, mask), component).reshape(LEAF, LEAF, LEAF)
            if inside:
                values[x : x + LEAF, y : y + LEAF, z : z + LEAF] = leaf
                continue
            cuts = [(max(s, 0), min(s + LEAF, n), max(-s, 0)) for s, n in zip((x, y, z), shape, strict=True)]
            if all(begin < end for begin, end, _ in cuts):
                part = leaf[tuple(slice(skip, skip + end - begin) for begin, end, skip in cuts)]
                values[tuple(slice(begin, end) for begin, end, _ in cuts)] = part
        return values

    def _check_leaves(self) -> None:
        """Fail where the values of a leaf are missing or damaged, before memory is taken for the box."""
        stream = Stream(self.content, self.place)
        unpack = self._unpacking(stream)
        stream.place = self.place
        for _ in range(sum(not isinstance(found, Tiles) for found in self._walk(stream))):
            unpack(stream, LEAF**3, stream.mask(LEAF**3))

    def _unpacking(self, stream: Stream) -> "_Unpacking":
        if stream.integer() != 1:
            raise ValueError("several buffers a leaf")
        return _Unpacking(self.path, self.dtype, self.half, self.packing, stream.value(self.dtype))

    def _walk(self, stream: Stream) -> Iterator["Tiles | tuple[tuple[int, ...], bytes]"]:
        """Cubes of one value, and each leaf's first voxel and mask; the stream is left where the leaves' values lie."""
        unpack = self._unpacking(stream)
        tiles, children = stream.numbers("II")
        seen = set[tuple[int, ...]]()
        for _ in range(tiles):
            corner = _root_corner(stream, seen)
            value, active = stream.value(self.dtype), bool(stream.integer("B"))
            yield Tiles(np.array([corner], np.int64), UPPER_EDGE, value[None], np.array([active]))
        for _ in range(children):
            upper = _root_corner(stream, seen)
            lowers = yield from _node(stream, upper, UPPER, LOWER_EDGE, unpack)
            for lower in lowers:
                leaves = yield from _node(stream, lower, LOWER, LEAF, unpack)
                for leaf in leaves:
                    yield tuple(leaf), stream.take(MASK)


def _root_corner(stream: Stream, seen: set[tuple[int, ...]]) -> tuple[int, ...]:
    corner = stream.numbers("3i")
    if corner in seen or any(place % UPPER_EDGE for place in corner):
        raise ValueError("its nodes overlap")
    seen.add(corner)
    return corner


def _node(
    stream: Stream, corner: Sequence[int], edge: int, child_edge: int, unpack: "_Unpacking"
) -> Any:  # a generator that yields Tiles and returns the first voxel of each child
    """What the node itself holds, and the first voxel of each child; x is the slowest."""
    has_child, active = stream.mask(edge**3), stream.mask(edge**3)
    values = unpack(stream, edge**3, active)
    differs = (values != unpack.background).reshape(edge**3, -1).any(axis=1)
    tiles, children = np.flatnonzero(~has_child & (active | differs)), np.flatnonzero(has_child)
    if len(tiles):
        yield Tiles(_corners(corner, tiles, edge, child_edge), child_edge, values[tiles], active[tiles])
    return _corners(corner, children, edge, child_edge).tolist()


def _corners(corner: Sequence[int], places: np.ndarray, edge: int, child_edge: int) -> np.ndarray:
    inside = np.stack([places // edge**2, places // edge % edge, places % edge], axis=1)
    return np.array(corner, np.int64) + child_edge * inside


def _picked(values: np.ndarray, component: int | None) -> np.ndarray:
    return values if component is None else values[..., component]


@dataclass(frozen=True)
class _Unpacking:
    """Reads the values of a node, as they were packed."""

    path: Path
    dtype: np.dtype
    half: bool
    packing: int
    background: np.ndarray

    def __call__(self, stream: Stream, count: int, active: Bool[np.ndarray, " N"]) -> np.ndarray:
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

    def _values(self, stream: Stream, count: int) -> np.ndarray:
        dtype = np.dtype(("<f2", self.dtype.shape)) if self.half else self.dtype
        if self.half and not count:
            return np.empty((0, *self.dtype.shape), self.dtype.base)
        size = count * dtype.itemsize
        content = stream.take(size) if not self.packing & (ZIP | BLOSC) else self._unpacked(stream, size)
        return np.frombuffer(content, dtype, count).astype(self.dtype.base)

    def _unpacked(self, stream: Stream, size: int) -> bytes:
        packed = stream.integer("q")
        if packed <= 0:  # packing gained nothing
            return stream.take(-packed)
        content = stream.take(packed)
        if not size:  # zlib would take 0 for no limit
            return b""
        if self.packing & BLOSC:
            blosc = require("numcodecs.blosc", f"{self.path}: reading it", "numcodecs", error=VolumeFileError)
            if packed < BLOSC_SIZES.size or BLOSC_SIZES.unpack_from(content) != (size, packed):
                raise ValueError("a block of another length")
            return blosc.decompress(content)
        return zlib.decompressobj().decompress(content, size)
