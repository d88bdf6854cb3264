"""One save of a run: the state is read while the training waits, the disk is waited for beside it."""

from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any, BinaryIO

import torch

LARGE = 2**28  # bytes of a state from which the disk is waited for beside the training: half a second of a slow one


class Saving:
    """A save that has begun, and that another may follow once it is over.

    No tensor is copied: what has been read lies in the system's memory of files, which it gives back when it is short
    of any. Then it writes that out first, and the training waits for it.

    Args:
        write: writes the files; it calls its argument once it reads nothing more of the state.
        step: of the state.
        beside: whether to return as soon as the state has been read; else when all is on the disk.
    """

    def __init__(self, write: Callable[[Callable[[], object]], object], step: int, beside: bool) -> None:
        self.step, self.error = step, None
        self._read, self._thread = Event(), None
        if not beside:
            self._make(write)
            return
        self._thread = Thread(target=self._make, args=(write,), name="saving")  # the program ends after it
        self._thread.start()
        self._read.wait()

    def is_over(self, wait: bool) -> bool:
        """Whether it is on the disk, or could not be written and has an `error`.

        Args:
            wait: until it is.
        """
        if self._thread is not None and wait:
            self._thread.join()
        return self._thread is None or not self._thread.is_alive()

    def _make(self, write: Callable[[Callable[[], object]], object]) -> None:
        try:
            write(self._read.set)
        except BaseException as error:
            self.error: BaseException | None = error
        finally:
            self._read.set()


def write_state(state: dict[str, Any], path: Path) -> None:
    """What `torch.load` reads, tensor by tensor, so that no second copy of all is in memory.

    Raises:
        OSError: it cannot be written.
    """
    with open(path, "wb") as file:
        noting = _Noting(file)
        try:
            torch.save(state, noting)  # pyright: ignore[reportArgumentType] - it asks for these two methods
        except Exception:
            if noting.error is None:
                raise
            raise noting.error from None


class _Noting:
    """A file that remembers what went wrong: torch says only that it did."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.error = file, None

    def write(self, piece: memoryview) -> int:
        try:
            return self._file.write(piece)
        except OSError as error:
            self.error: OSError | None = error
            raise

    def flush(self) -> None:
        self._file.flush()
