"""`train` as a sweep starts it: the same, and when stdin closes it is told to save and end.

Whoever started it holds the other end, and closes it by ending in whatever way. Started by `sweeps.jobs`.
"""

import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from .program import run_command


def main(arguments: Sequence[str]) -> NoReturn:
    """Train."""
    threading.Thread(target=end_with_the_sweep, name="end with the sweep", daemon=True).start()
    run_command("train", arguments)


def end_with_the_sweep() -> None:
    """Wait until stdin closes, then tell this process to save and end."""
    with suppress(OSError):
        while os.read(0, 1):
            pass
    signal.raise_signal(signal.SIGTERM)  # as a scheduler would: the run is saved after the step


if __name__ == "__main__":
    main(sys.argv[1:])
