"""Files of other people, opened without waiting for anybody and read up to a limit.

A path can lead to a named pipe that nobody writes to, a terminal, a disk or a few bytes that unpack to terabytes. Here
only plain files are opened, also through a link, and no reader takes more than it was told to.
"""

import errno
import gzip
import os
import stat
from pathlib import Path
from typing import BinaryIO, Protocol, cast, runtime_checkable

PIECE = 2**20  # bytes that are read at once
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@runtime_checkable
class Readable(Protocol):
    """Anything that bytes come from."""

    def read(self, size: int, /) -> bytes:
        """Up to so many bytes, none at the end."""
        ...


def check_plain_file(path: str | Path) -> None:
    """For readers that take a path: fail where it leads to anything but a plain file.

    Raises:
        OSError: there is nothing, or it is a folder, a named pipe, a socket or a device; `strerror` says which.
    """
    _check(path, os.stat(path).st_mode)


def open_plain(path: str | Path) -> BinaryIO:
    """A plain file opened for reading its bytes; links are followed.

    Raises:
        OSError: it cannot be opened, or is no plain file; `strerror` says why.
    """
    check_plain_file(path)  # before it is opened: opening a device can do something
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    number = os.open(path, flags)
    try:
        _check(path, os.fstat(number).st_mode)  # it may have been exchanged in between
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def read_plain(path: str | Path, most: int) -> bytes:
    """The content of a plain file.

    Args:
        path: the file.
        most: bytes that it may hold.

    Raises:
        OSError: it cannot be read, is no plain file, or holds more; `strerror` says why.
    """
    with open_plain(path) as file:
        try:
            return read_at_most(file, most)
        except ValueError as error:
            raise OSError(errno.EFBIG, str(error), str(path)) from None


def read_at_most(stream: Readable, most: int) -> bytes:
    """All that is left of a stream, piece by piece, so that a limit is noticed before it is exceeded by much.

    Raises:
        ValueError: it holds more than `most` bytes.
    """
    content = bytearray()
    while piece := stream.read(min(PIECE, most + 1 - len(content))):
        content += piece
        if len(content) > most:
            raise ValueError(f"holds more than {size_in_words(most)}")
    return bytes(content)


def gunzipped(file: Readable, most: int) -> bytes:
    """What a gzip file holds, up to a limit.

    Raises:
        ValueError: it unpacks to more than `most` bytes.
        OSError, EOFError, zlib.error: it is damaged.
    """
    with gzip.GzipFile(fileobj=cast("BinaryIO", file)) as unpacked:
        try:
            return read_at_most(unpacked, most)
        except ValueError:
            raise ValueError(f"unpacks to more than {size_in_words(most)}") from None


def size_in_words(count: int) -> str:
    """A number of bytes for a message: 1.5 GiB, 12 MiB, 3 KiB."""
    for power, unit in zip((6, 5, 4, 3, 2, 1), ("EiB", "PiB", "TiB", "GiB", "MiB", "KiB"), strict=True):
        if count >= (size := 2 ** (10 * power)):
            return f"{count / size:.{3 if count < 1000 * size else 4}g} {unit}"
    return f"{count} bytes"


def _check(path: str | Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "something else")
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(number, f"is {kind}, not a plain file", str(path))
