"""VTK image data (.vti), read without VTK: on a header that claims too much VTK ends the process.

Arrays of numbers as text, base64 or raw bytes, inline or appended, packed by zlib, LZ4 or LZMA, in any pieces.

Source: VTK's file formats, "XML file formats"; IO/XMLParser/vtkXMLDataParser.cxx for the blocks of packed arrays.
"""

import base64
import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from ..errors import VolumeFileError, shown
from ..storage.inflating import Inflated
from ..storage.optional import require
from ..storage.plain_files import Readable, open_plain
from .contents import MOST_BYTES, PIECE, ByteOrder, Claim, Numerals, drain, exactly, read_claim, read_packed_claim
from .orientation import oriented_voxels
from .picking import COMPONENT, SPACE, Pick, picked_name, volume_index
from .voxel_array import Voxels, check_shape
from .vti_xml import Array, Outline, Piece, read_outline

OWN_MARKS = "vtk"  # names of VTK's own arrays begin so: masks and ghosts are no matter
TYPES = {f"{kind}{8 * size}": f"{letter}{size}" for kind, letter, sizes in (
    ("Int", "i", (1, 2, 4, 8)), ("UInt", "u", (1, 2, 4, 8)), ("Float", "f", (4, 8))) for size in sizes}  # fmt: skip
ORDERS: dict[str, ByteOrder] = {"LittleEndian": "<", "BigEndian": ">"}
COUNTS = {"UInt32": "u4", "UInt64": "u8"}  # what lengths are written as
STREAMED = {"vtkZLibDataCompressor": "zlib", "vtkLZMADataCompressor": "xz"}
LZ4 = "vtkLZ4DataCompressor"
MOST_BLOCK = 2**26  # bytes of an LZ4 block, which is unpacked as a whole
MANY_BLOCKS, SMALL_BLOCK = 2**20, 2**10  # so many blocks are not smaller than that
TEXT_PIECE = 2**16


def read_vti(path: Path, pick: Pick) -> Voxels:
    """Point data, else cell data: the array attenuation (and absorbance), else the active scalars, else the first."""
    with open_plain(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _image(path, content, read_outline(path, content), pick)


def _image(path: Path, content: mmap.mmap, outline: Outline, pick: Pick) -> Voxels:
    whole = _extent(outline.image.get("WholeExtent", ""))
    extents = [_extent(piece.told.get("Extent", "")) for piece in outline.pieces]
    filled = sum(map(_cells, extents))
    if filled < _cells(whole):
        raise VolumeFileError(f"{path}: damaged: its pieces do not fill its extent {whole}")
    if filled > 2 * _cells(whole) or any(not _within(extent, whole) for extent in extents):
        raise VolumeFileError(f"{path}: damaged: its pieces are larger than its extent {whole}")
    on_cells = not _names(outline, "PointData") and bool(_names(outline, "CellData"))
    kind = "CellData" if on_cells else "PointData"
    names = [name for name, array in _names(outline, kind).items() if array.told.get("type") in TYPES]
    if not names:
        raise VolumeFileError(f"{path}: holds no point or cell data; must hold an array of numbers")
    matter = [name for name in names if not name.startswith(OWN_MARKS)]
    main = picked_name(path, names, pick, ["attenuation", outline.pieces[0].active.get(kind), *matter])
    check_shape(path, _size(whole, on_cells))
    channels = [_channel(path, content, outline, main, kind, pick)]
    if "absorbance" in names and main != "absorbance" and pick.array is None:
        channels.append(_channel(path, content, outline, "absorbance", kind, Pick()))
    spacing = _numbers(outline.image.get("Spacing", "1 1 1"), 3)
    turned = np.array(_numbers(outline.image.get("Direction", "1 0 0 0 1 0 0 0 1"), 9)).reshape(3, 3)
    return oriented_voxels(path, channels, turned * np.array(spacing))


def _names(outline: Outline, kind: str) -> dict[str, Array]:
    """The arrays of a kind, those of the first piece."""
    found = outline.pieces[0].arrays.get(kind, []) if outline.pieces else []
    return {array.told.get("Name", ""): array for array in found}


def _channel(path: Path, content: mmap.mmap, outline: Outline, name: str, kind: str, pick: Pick) -> np.ndarray:
    """One number a voxel, by the axes of the image."""
    whole, on_cells = _extent(outline.image["WholeExtent"]), kind == "CellData"
    size = _size(whole, on_cells)
    components = int(_names(outline, kind)[name].told.get("NumberOfComponents", "1"))
    index = volume_index(path, [*size, components], [SPACE, SPACE, SPACE, COMPONENT], pick)
    found = None
    for piece in outline.pieces:
        extent = _extent(piece.told["Extent"])
        part = _read(
            path, content, outline, _array(path, piece, name, kind), _size(extent, on_cells), index, components
        )
        if len(outline.pieces) == 1 and part.shape == tuple(size):
            return part.transpose(2, 1, 0)
        if found is None:
            found = np.zeros(size, np.float32)
        starts = [first - begin for first, begin in zip(extent[::2], whole[::2], strict=True)][::-1]
        found[tuple(slice(s, s + n) for s, n in zip(starts, part.shape, strict=True))] = part
    assert found is not None
    return found.transpose(2, 1, 0)


def _array(path: Path, piece: Piece, name: str, kind: str) -> Array:
    array = {each.told.get("Name", ""): each for each in piece.arrays.get(kind, [])}.get(name)
    if array is None:
        raise VolumeFileError(f"{path}: damaged: one of its pieces has no {shown(name)}")
    return array


def _read(
    path: Path,
    content: mmap.mmap,
    outline: Outline,
    array: Array,
    size: Sequence[int],
    index: tuple[int | slice, ...],
    components: int,
) -> np.ndarray:
    """The picked number of each voxel of a piece, in (z, y, x)."""
    told, order = array.told, ORDERS[outline.file.get("byte_order", "LittleEndian")]
    if int(told.get("NumberOfComponents", "1")) != components:
        raise ValueError("its pieces have different numbers of components")
    dtype = np.dtype(TYPES[told["type"]])
    layout, compressor = told.get("format", "ascii"), outline.file.get("compressor", "")
    if layout == "ascii":
        claim = Claim(path, (*size, components), dtype, index)
        return read_packed_claim(claim, lambda: Numerals(_Bytes(content, array.begin, array.end), dtype))
    claim = Claim(path, (*size, components), dtype.newbyteorder(order), index)
    counts = np.dtype(COUNTS[outline.file.get("header_type", "UInt32")]).newbyteorder(order)

    def source() -> Readable:
        if layout == "binary":
            return _Base64(_Bytes(content, array.begin, array.end))
        if layout != "appended" or outline.appended is None:
            raise ValueError(f"the format of an array is {shown(layout)}, or its data are not there")
        encoding, begin = outline.appended
        end = content.rfind(b"<", begin, content.rfind(b"<"))  # of the closing tag
        begin += int(told.get("offset", "0"))
        if not 0 <= begin <= end or encoding not in ("raw", "base64"):
            raise ValueError("the data of an array are not there")
        return _Bytes(content, begin, end) if encoding == "raw" else _Base64(_Bytes(content, begin, end))

    if compressor:
        return read_packed_claim(claim, lambda: _Blocks(path, source(), counts, compressor, claim.size))
    stream = source()
    (length,) = np.frombuffer(exactly(stream, counts.itemsize), counts).tolist()
    if length < claim.size or claim.size > len(content):
        raise VolumeFileError(
            f"{path}: damaged: its header claims {claim.size:,} bytes of voxels, {length:,} are there"
        )
    return read_claim(claim, stream)


class _Bytes:
    """A part of the file."""

    def __init__(self, content: mmap.mmap, begin: int, end: int) -> None:
        self._content, self._place, self._end = content, begin, end

    def read(self, size: int, /) -> bytes:
        piece = self._content[self._place : min(self._place + max(size, 0), self._end)]
        self._place += len(piece)
        return piece


class _Base64:
    """What base64 stands for; where a padded part ends, the next begins."""

    def __init__(self, text: Readable) -> None:
        self._text, self._rest, self._ready = text, b"", b""

    def read(self, size: int, /) -> bytes:
        while not self._ready:
            more = self._text.read(TEXT_PIECE)
            if not more:
                if self._rest:
                    raise ValueError("its base64 ends too early")
                return b""
            text = self._rest + b"".join(more.split())
            cut = len(text) // 4 * 4
            text, self._rest = text[:cut], text[cut:]
            parts = text.replace(b"=", b"= ").replace(b"= =", b"==").split()  # each ends with its padding
            self._ready = b"".join(base64.b64decode(part, validate=True) for part in parts)
        piece, self._ready = self._ready[:size], self._ready[size:]
        return piece


@dataclass
class _Limited:
    """The next bytes of a stream, and no more of them."""

    stream: Readable
    left: int

    def read(self, size: int, /) -> bytes:
        piece = self.stream.read(min(size, self.left))
        self.left -= len(piece)
        return piece


class _Blocks:
    """An array that is packed in blocks, of which a table tells the lengths."""

    def __init__(self, path: Path, stream: Readable, counts: np.dtype, compressor: str, size: int) -> None:
        if compressor != LZ4 and compressor not in STREAMED:
            raise ValueError(f"it is packed by {shown(compressor)}; must be by zlib, LZ4 or LZMA")
        number, block, last = np.frombuffer(exactly(stream, 3 * counts.itemsize), counts).tolist()
        told = block * (number - (last > 0)) + last
        if told < size:
            raise ValueError(f"its header claims {size:,} bytes, the blocks {told:,}")
        if last > block or (number > MANY_BLOCKS and block < SMALL_BLOCK) or (number > 1 and block == 0):
            raise ValueError("its blocks make no sense")
        if told > MOST_BYTES or (compressor == LZ4 and block > MOST_BLOCK):
            raise ValueError(f"its blocks are too large ({block:,} bytes, {told:,} in all)")
        table = exactly(stream, number * counts.itemsize)
        self._path, self._stream, self._compressor = path, stream, compressor
        self._table = np.frombuffer(table, counts).tolist()
        self._sizes, self._number, self._done = (block, last or block), number, 0
        self._ready, self._place = b"", 0
        self._packed = _Limited(stream, 0)
        self._part: Readable = self._packed
        self._left = 0  # of the block, unpacked

    def read(self, size: int, /) -> bytes:
        while True:
            if self._place < len(self._ready):
                piece = self._ready[self._place : self._place + size]
                self._place += len(piece)
                return piece
            if self._left:
                self._ready, self._place = exactly(self._part, min(self._left, PIECE)), 0
                self._left -= len(self._ready)
                continue
            drain(self._packed, self._packed.left)
            if self._done == self._number:
                return b""
            self._left = self._sizes[self._done == self._number - 1]
            self._part = self._block(self._table[self._done], self._left)
            self._done += 1

    def _block(self, packed: int, expected: int) -> Readable:
        """What unpacks the next block."""
        self._packed = _Limited(self._stream, packed)
        if self._compressor in STREAMED:
            return Inflated(self._packed, STREAMED[self._compressor], expected)
        lz4 = require("numcodecs.lz4", f"{self._path}: reading it", "numcodecs", error=VolumeFileError)
        if packed > 2 * MOST_BLOCK:
            raise ValueError("its blocks make no sense")
        content = lz4.decompress(expected.to_bytes(4, "little") + exactly(self._packed, packed))
        if len(content) != expected:
            raise ValueError("a block of another length")
        return BytesIO(content)


def _extent(text: str) -> tuple[int, ...]:
    extent = tuple(int(place) for place in text.split()[:7])
    if len(extent) != 6 or any(last < first for first, last in zip(extent[::2], extent[1::2], strict=True)):
        raise ValueError(f"its extent is {shown(text)}; must be six numbers, each first <= last")
    return extent


def _size(extent: Sequence[int], on_cells: bool) -> list[int]:
    """Points or cells along (z, y, x)."""
    return [last - first + 1 - on_cells for first, last in zip(extent[::2], extent[1::2], strict=True)][::-1]


def _within(extent: Sequence[int], whole: Sequence[int]) -> bool:
    firsts, lasts = zip(extent[::2], whole[::2], strict=True), zip(extent[1::2], whole[1::2], strict=True)
    return all(first >= begin for first, begin in firsts) and all(last <= end for last, end in lasts)


def _cells(extent: Sequence[int]) -> int:
    """How many there are between the first and the last point along each axis; a flat one counts as one layer."""
    return math.prod(max(last - first, 1) for first, last in zip(extent[::2], extent[1::2], strict=True))


def _numbers(text: str, count: int) -> list[float]:
    numbers = [float(each) for each in text.split()[: count + 1]]
    if len(numbers) != count:
        raise ValueError(f"{shown(text)}: must be {count} numbers")
    return numbers
