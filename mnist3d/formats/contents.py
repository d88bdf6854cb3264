"""The numbers in a file: as many as its header claims, and not one more.

What a header says is a stranger's word. It is compared with the limits, and with the bytes that are there, before
memory is taken for it; then the one volume that was picked is read, a piece at a time.
"""

import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from jaxtyping import Shaped

from ..errors import VolumeFileError
from ..geometry.grids import MAX_RESOLUTION
from ..storage.inflating import Inflated
from ..storage.plain_files import Readable, open_plain, size_in_words
from .voxel_array import check_growth

MOST_BYTES = 8 * MAX_RESOLUTION**3  # unpacked: the largest volume in double precision
HEADER_BYTES = 2**20  # of a header that is text
PIECE = 2**22  # bytes that are turned into numbers at once
TEXT_PIECE, LONGEST_NUMERAL = 2**18, 2**10
COUNTED = 2**28  # bytes: what claims to unpack to more is unpacked twice, at first only to be counted
ByteOrder = Literal["<", ">"]
Convert = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Claim:
    """What a header says of an array, in the order of the file's bytes.

    Args:
        path: for messages.
        shape: from the axis whose step is the longest to that of neighbouring bytes.
        dtype: of a number, with its byte order.
        index: of each axis: a place, or all of it.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    index: tuple[int | slice, ...]

    @property
    def size(self) -> int:
        """Bytes of the whole array."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def needed(self) -> int:
        """Bytes from its begin to the end of the volume that is picked."""
        last = 0
        for n, at in zip(self.shape, self.index, strict=True):
            last = last * n + (at if isinstance(at, int) else n - 1)
        return (last + 1) * self.dtype.itemsize

    @property
    def picked(self) -> tuple[int, ...]:
        """The shape of the volume that is picked."""
        return tuple(n for n, at in zip(self.shape, self.index, strict=True) if not isinstance(at, int))


def first_fastest(path: Path, shape: Sequence[int], dtype: np.dtype, index: Sequence[int | slice]) -> Claim:
    """A claim whose first axis is that of neighbouring bytes; what `read_claim` gives is then to be transposed."""
    return Claim(path, tuple(shape)[::-1], dtype, tuple(index)[::-1])


def read_plain_claim(claim: Claim, file: BinaryIO, offset: int, convert: Convert | None = None) -> np.ndarray:
    """A volume whose numbers lie in a file as they are.

    Args:
        claim: what is told of them.
        file: a plain file.
        offset: where the array begins, in bytes.
        convert: from the numbers of the file to real ones.

    Raises:
        VolumeFileError: more is claimed than the file holds.
    """
    held = size_of(file) - offset
    if offset < 0 or claim.size > held:
        raise VolumeFileError(
            f"{claim.path}: damaged: its header claims {claim.size:,} bytes of voxels, {max(held, 0):,} are there"
        )
    file.seek(offset)
    return read_claim(claim, file, convert)


def read_packed_claim(
    claim: Claim,
    opened: Callable[[], Readable],
    skip: int = 0,
    convert: Convert | None = None,
    whole: bool = False,
) -> np.ndarray:
    """A volume whose numbers are packed: the claim is within the limit, and large ones are counted at first.

    Args:
        claim: what is told of them.
        opened: begins to unpack; called again for large ones.
        skip: bytes before the array.
        convert: from the numbers of the file to real ones.
        whole: whether more than is claimed is an error.

    Raises:
        VolumeFileError: more is claimed than may be.
        ValueError: less is there than is claimed, or more.
    """
    end = skip + (claim.size if whole else claim.needed)
    if end > MOST_BYTES:
        raise VolumeFileError(
            f"{claim.path}: its header claims {size_in_words(end)} of voxels; packed ones must be at most "
            f"{size_in_words(MOST_BYTES)}: write one volume, not packed, in the tool that made it"
        )
    if end > COUNTED:
        drain(opened(), end)
    stream = opened()
    drain(stream, skip)
    found = read_claim(claim, stream, convert)
    if (claim.needed == claim.size) and stream.read(1) and whole:  # at the end, checksums are compared
        raise ValueError("it holds more than its header claims")
    return found


def read_claim(claim: Claim, stream: Readable, convert: Convert | None = None) -> Shaped[np.ndarray, "..."]:
    """The volume that is picked, in float32, its axes in the order of the claim; the stream is left where it ends.

    Raises:
        ValueError: the stream ends too early.
    """
    check_growth(claim.path, claim.picked, claim.picked, "it")
    found = np.empty(claim.picked, np.float32)
    _fill(found, claim.shape, claim.index, claim.dtype, stream, convert)
    return found


def _fill(
    found: np.ndarray,
    shape: Sequence[int],
    index: Sequence[int | slice],
    dtype: np.dtype,
    stream: Readable,
    convert: Convert | None,
    last: bool = True,
) -> None:
    size = math.prod(shape) * dtype.itemsize
    if size <= PIECE or not shape:
        part = np.frombuffer(exactly(stream, size), dtype).reshape(shape)[tuple(index)]
        found[...] = part if convert is None else convert(part)
    elif isinstance(at := index[0], int):
        below = size // shape[0]
        drain(stream, below * at)
        _fill(found, shape[1:], index[1:], dtype, stream, convert, last)
        if not last:  # nothing is read behind the volume
            drain(stream, below * (shape[0] - 1 - at))
    else:
        for place in range(shape[0]):
            final = last and place == shape[0] - 1
            _fill(found[place, ...], shape[1:], index[1:], dtype, stream, convert, final)


def exactly(stream: Readable, count: int) -> bytes:
    """So many bytes.

    Raises:
        ValueError: it ends before.
    """
    piece = stream.read(count)
    if len(piece) == count:
        return piece
    content = bytearray(piece)
    while len(content) < count:
        piece = stream.read(count - len(content))
        if not piece:
            raise ValueError("it ends too early")
        content += piece
    return bytes(content)


def up_to(stream: Readable, count: int) -> bytes:
    """So many bytes, or fewer at the end."""
    content = b""
    while len(content) < count and (piece := stream.read(count - len(content))):
        content += piece
    return content


def drain(stream: Readable, count: int) -> None:
    """Go on by so many bytes.

    Raises:
        ValueError: it ends before.
    """
    if isinstance(stream, BufferedReader):  # a plain file
        stream.seek(count, 1)
        return
    while count > 0:
        piece = stream.read(min(count, PIECE))
        if not piece:
            raise ValueError("it ends too early")
        count -= len(piece)


def count(stream: Readable) -> int:
    """Bytes up to the end."""
    found = 0
    while piece := stream.read(PIECE):
        found += len(piece)
    return found


class Numerals:
    """Numbers that stand as text, as the bytes that they would be in an array.

    Args:
        text: where the text comes from; numbers are separated by white space.
        dtype: of a number.
    """

    def __init__(self, text: Readable, dtype: np.dtype) -> None:
        self._text, self._dtype = text, dtype
        self._rest, self._numbers = b"", BytesIO()

    def read(self, size: int, /) -> bytes:
        """Up to so many bytes, none at the end.

        Raises:
            ValueError: something is no number.
        """
        while not (piece := self._numbers.read(size)):
            more = self._text.read(TEXT_PIECE)
            text, self._rest = self._rest + more, b""
            if more:
                end = len(text) - len(re.split(rb"\s", text[-LONGEST_NUMERAL:])[-1])
                text, self._rest = text[:end], text[end:]
                if len(self._rest) >= LONGEST_NUMERAL:
                    raise ValueError(f"a number of more than {LONGEST_NUMERAL} digits")
            elif not text.strip():
                return b""
            with warnings.catch_warnings():
                warnings.simplefilter("error", DeprecationWarning)  # what is left over when something is no number
                try:
                    numbers = np.fromstring(text, self._dtype, sep=" ") if text.strip() else np.empty(0, self._dtype)
                except (DeprecationWarning, ValueError):
                    raise ValueError("among its numbers is something else") from None
            self._numbers = BytesIO(numbers.tobytes())
        return piece


def size_of(file: BinaryIO) -> int:
    """Bytes of an open file."""
    place = file.tell()
    end = file.seek(0, 2)
    file.seek(place)
    return end


@contextmanager
def opened_maybe_gzip(path: Path, packed: bool) -> Iterator[tuple[BinaryIO, Callable[[], Readable]]]:
    """A plain file, and what begins to read it: unpacked where it is a gzip file.

    Args:
        path: the file.
        packed: whether it is one.

    Raises:
        OSError: it is no plain file.
    """
    with open_plain(path) as file:

        def begin() -> Readable:
            file.seek(0)
            return Inflated(file, "gzip", MOST_BYTES + HEADER_BYTES) if packed else file

        yield file, begin
