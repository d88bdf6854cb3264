"""Files that are added to in place: never through a link, never into what is no plain file, a line whole or not at all.

A run directory may come from somebody else, and a link in it may lead to a file of the user's.
"""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Literal

from ..errors import RunError
from .atomic import write_atomically
from .plain_files import KINDS


def check_own(path: Path, wanted: Literal["file", "folder"]) -> None:
    """Fail where writing to `path` would reach something else. What is not there is fine.

    Raises:
        RunError: it is a link, or of another kind.
    """
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISLNK(mode):
        raise RunError(
            f"{path}: is a symbolic link, and nothing is written through one; put a {wanted} of its own in its place"
        )
    if not (stat.S_ISREG(mode) if wanted == "file" else stat.S_ISDIR(mode)):
        kind = KINDS.get(stat.S_IFMT(mode), "a file" if wanted == "folder" else "something else")
        raise RunError(f"{path}: is {kind}, where a {wanted} is written; move it away")


def append_line(path: Path, line: bytes) -> None:
    """Add a line to a file, which is made where it is missing; whole, or the file stays as it was.

    A file that has other names too (hard links, as backups make them) is copied first: what the other names lead to
    stays as it is.

    Raises:
        OSError: the disk is full, or the file cannot be written.
    """
    number = _opened(path)
    try:
        if os.fstat(number).st_nlink > 1:
            os.close(number)
            write_atomically(path, path.read_bytes())
            number = _opened(path)
        size = os.fstat(number).st_size
        try:
            if os.write(number, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            with suppress(OSError):
                os.ftruncate(number, size)
            raise
    finally:
        os.close(number)


def _opened(path: Path) -> int:
    """Opened for adding, without waiting for anybody."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_BINARY", "O_NOINHERIT", "O_CLOEXEC"):
        flags |= getattr(os, name, 0)
    number = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "is no plain file", str(path))
    return number
