"""Signals that ask a process to end: which there are, and that the second of them is obeyed at once.

Ctrl-C sends SIGINT, a scheduler SIGTERM, a terminal that is closed SIGHUP, Ctrl-Break on Windows SIGBREAK. Nothing
heavy is imported here, as they can come before torch has been.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

NUMBERS = tuple(
    int(getattr(signal, name)) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)
# A closed terminal sends several, as each shell hands it on. None of them is a second thought.
HANGUP = getattr(signal, "SIGHUP", None)
# s within which a second signal is the first one again: `timeout` and launchers hand on what the whole group has got
ECHO = 0.5


class Ended(BaseException):
    """A signal other than Ctrl-C's ends the command; what is half done is cleaned up on the way.

    Args:
        number: of the signal.
        done: what the signal did.
    """

    def __init__(self, number: int, done: str = "ended") -> None:
        super().__init__(f"{done} by {name_of(number)}")
        self.code = 128 + number


@contextmanager
def on_signals(first: Callable[[int], object], program: str, *, even_ignored: Collection[int] = ()) -> Iterator[None]:
    """While the block runs, the first signal calls `first`; one that comes later ends the process at once.

    What was ignored before, as `nohup` ignores SIGHUP, stays ignored. In a thread other than the main one, where Python
    takes no handlers, nothing changes.

    Args:
        first: is handed the number of the signal.
        program: what messages begin with.
        even_ignored: signals that are taken though they were ignored.
    """
    came_at: list[float] = []

    def handle(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not came_at:
            came_at.append(now)
            first(number)
        elif number != HANGUP and now - came_at[0] >= ECHO:
            end_at_once(number, program)

    before = {number: signal.getsignal(number) for number in NUMBERS}
    for number, handler in before.items():
        if handler is not None and (handler != signal.SIG_IGN or number in even_ignored):
            _set(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                _set(number, handler)


def end_in_order(number: int) -> NoReturn:
    """What the first signal does to most commands: an exception, so that temporary files and children go.

    Raises:
        KeyboardInterrupt, Ended: always.
    """
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Ended(number)


def end_at_once(number: int, program: str) -> NoReturn:
    """One line, and no more: locks go with the process, and what is on disk is whole."""
    say(f"{program}: {'interrupted' if number == signal.SIGINT else f'ended by {name_of(number)}'}")
    os._exit(128 + number)


def say(line: str) -> None:
    """A line on stderr from within a signal handler, where `print` could meet itself half-way."""
    with suppress(OSError, ValueError, AttributeError):
        encoding = sys.stderr.encoding or "ascii"
        os.write(sys.stderr.fileno(), f"{line}\n".encode(encoding, "backslashreplace"))


def _set(number: int, handler: Any) -> None:
    with suppress(ValueError):  # not in the main thread
        signal.signal(number, handler)


def name_of(number: int) -> str:
    """SIGTERM for 15."""
    return signal.Signals(number).name
