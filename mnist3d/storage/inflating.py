"""Compressed bytes of a stranger's file, unpacked piece by piece and never more than was asked for.

Python's own `gzip` reads a name in the header letter by letter, and the size that a file tells is a stranger's word.
"""

import bz2
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from .plain_files import PIECE, Readable, size_in_words

PACKED = 2**16  # bytes of the file that are handed over at once
GZIP = zlib.MAX_WBITS | 16
XZ_MEMORY = 2**27  # bytes: the strongest preset needs 65 MiB
ZIP_PIECE = 2**22
PARTS, PART = 2**10, 2**10  # parts that may be short, and how many bytes the others bring on average


KINDS: dict[str, Callable[[], Any]] = {
    "gzip": lambda: zlib.decompressobj(GZIP),
    "zlib": zlib.decompressobj,
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(memlimit=XZ_MEMORY),
}


class Inflated:
    """What a compressed stream holds: a file of one part or several, with zeros between and behind.

    Args:
        packed: where the compressed bytes come from.
        kind: "gzip", "zlib", "bzip2" or "xz".
        most: bytes that it may unpack to.
    """

    def __init__(self, packed: Readable, kind: str, most: int) -> None:
        self._packed, self._begin, self._most = packed, KINDS[kind], most
        self._part, self._waiting = self._begin(), b""
        self._pending, self._parts, self._taken = False, 1, 0

    def read(self, size: int, /) -> bytes:
        """Up to so many bytes, none at the end.

        Raises:
            ValueError: it unpacks to more than it may, or lies in too many parts.
            EOFError, OSError, zlib.error, lzma.LZMAError: it is cut short or damaged.
        """
        while size > 0:
            if self._part.eof and not self._next_part():
                return b""
            if not self._waiting and getattr(self._part, "needs_input", not self._pending):
                self._waiting = self._packed.read(PACKED)
                if not self._waiting:
                    raise EOFError("the compressed data end too early")
            piece = self._unpack(min(size, PIECE))
            if piece:
                self._taken += len(piece)
                if self._taken > self._most:
                    raise ValueError(f"unpacks to more than {size_in_words(self._most)}")
                return piece
        return b""

    def _unpack(self, size: int) -> bytes:
        piece = self._part.decompress(self._waiting, size)
        self._pending = len(piece) == size  # zlib does not say whether it holds more
        self._waiting = getattr(self._part, "unconsumed_tail", b"")  # zlib hands it back, the others keep it
        if self._part.eof:
            self._waiting = self._part.unused_data
        return piece

    def _next_part(self) -> bool:
        """Whether another part begins."""
        rest = self._waiting.lstrip(b"\0")
        while not rest:
            more = self._packed.read(PACKED)
            if not more:
                return False
            rest = more.lstrip(b"\0")
        self._parts += 1
        if self._parts > PARTS + self._taken // PART:
            raise ValueError("lies in too many parts")
        self._waiting, self._part, self._pending = rest, self._begin(), False
        return True


class _AtMost(io.RawIOBase):
    """A file of which no reader takes much at once: `zipfile` believes how long the table of contents is."""

    def __init__(self, file: io.BufferedReader | io.BytesIO, most: int) -> None:
        super().__init__()
        self._file, self._most = file, most

    def read(self, size: int = -1, /) -> bytes:
        content = self._file.read(self._most + 1 if size < 0 else min(size, self._most + 1))
        if len(content) > self._most:
            raise ValueError(f"its table of contents is larger than {size_in_words(self._most)}")
        return content

    def seek(self, place: int, whence: int = 0, /) -> int:
        return self._file.seek(place, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


@contextmanager
def opened_zip(file: io.BufferedReader | io.BytesIO) -> Iterator[zipfile.ZipFile]:
    """A zip archive, for reading its members in pieces of at most 4 MiB; its table of contents is no longer either.

    Raises:
        zipfile.BadZipFile, ValueError: it is none; its table is too long; or a member is packed by what unpacks
            without a limit; or lies outside; or two have one name, of which readers choose differently.
    """
    with zipfile.ZipFile(cast("IO[bytes]", _AtMost(file, ZIP_PIECE))) as archive:
        if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in archive.filelist):
            raise ValueError("its members must be stored or deflated")
        if any(member.header_offset < 0 for member in archive.filelist):
            raise ValueError("its members lie outside it")
        if len({member.filename for member in archive.filelist}) < len(archive.filelist):
            raise ValueError("two of its members have one name")
        yield archive
