"""The terminal as it may be: without some letters, closed before the program began, or closed while it runs."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

# Nobody reads what is written: a closed pipe; a closed terminal, which Linux and macOS report in these two ways.
NOBODY_READS = (errno.EPIPE, errno.EIO, errno.ENXIO)


class LastingStream:
    """A text stream that goes quiet where it cannot be written any more: what it is told never ends a run.

    Args:
        stream: what is written to.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """All of it, or, where nobody reads, none."""
        try:
            self._stream.write(text)
        except OSError:
            drop(self._stream)
        return len(text)

    def flush(self) -> None:
        """What is still held, likewise."""
        try:
            self._stream.flush()
        except OSError:
            drop(self._stream)


@contextmanager
def lasting_terminal() -> Iterator[None]:
    r"""In the block stderr is a `LastingStream`, and a letter that an encoding lacks is written as \xf6."""
    _occupy()
    before = sys.stderr
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None where a shell closed it; something else in a notebook
            stream.reconfigure(errors="backslashreplace")
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        sys.stderr = LastingStream(nowhere if before is None else before)
        try:
            yield
        finally:
            sys.stderr = before


def drop(stream: Any) -> None:
    """What is still to be written to a stream goes nowhere, or the interpreter complains at its end."""
    with suppress(OSError, ValueError):  # a stream without a file has nothing to hold
        number = os.open(os.devnull, os.O_WRONLY)
        os.dup2(number, stream.fileno())
        os.close(number)


def _occupy() -> None:
    """Where a shell closed stdin, stdout or stderr, `2>&-`, the next file that is opened would take its place."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
