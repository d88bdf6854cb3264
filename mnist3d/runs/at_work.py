"""What a command says while it takes long: a bar on a terminal, a line now and then elsewhere; nothing while quick.

A thread of its own shows it, so that no step of the work, however long, is silent.
"""

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

QUIET_SECONDS = 2.0  # what takes less needs no words
BEAT_SECONDS = 0.5  # between two looks at the bar, whose clock goes on while a step of the work is long
LINE_SECONDS = 20.0  # before and between lines where stderr is no terminal, and so perhaps a file that somebody reads
BAR = "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"
CLOCK = "{desc} {elapsed}"  # where nobody knows what share is done


class AtWork:
    """A context in which work is done.

        with AtWork("writing a mesh") as work:
            work.tell(0.3, "joining the pieces")

    Args:
        doing: what is done, in the words of "writing a mesh".
    """

    def __init__(self, doing: str) -> None:
        self.doing, self.share = doing, 0.0
        self._over = threading.Event()
        self._bar: Any = None
        self._began = self._last_line = 0.0
        self._thread: threading.Thread | None = None
        self._kept = ExitStack()

    def tell(self, share: float, doing: str = "") -> None:
        """How far the work is.

        Args:
            share: done, [0, 1].
            doing: what is done now; default as before.
        """
        self.share, self.doing = share, doing or self.doing

    def over(self, items: Iterable[Any], count: int, doing: str = "") -> "Told":
        """Items one by one, each of which is told of; the work is theirs alone."""
        self.doing = doing or self.doing
        return Told(items, count, self)

    def __enter__(self) -> "AtWork":
        self._began = time.time()
        if sys.stderr is not None:  # None where a shell closed it
            self._thread = threading.Thread(target=self._watch, args=(sys.stderr,), name="at work", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        if self._bar is not None:
            self._bar.close()
        self._kept.close()

    def _watch(self, stream: Any) -> None:
        terminal = stream.isatty()
        pause = QUIET_SECONDS if terminal else LINE_SECONDS
        while not self._over.wait(pause):
            pause = BEAT_SECONDS if terminal else LINE_SECONDS
            if terminal:
                self._draw(stream)
            else:
                done = f", {self.share:.0%}" if self.share > 0.0 else ""
                print(f"{self.doing}{done}, {time.time() - self._began:.0f} s so far", file=stream, flush=True)

    def _draw(self, stream: Any) -> None:
        if self._bar is None:
            from tqdm import tqdm
            from tqdm.contrib.logging import logging_redirect_tqdm

            # a delay, or it would be drawn before it knows when the work began
            self._bar = tqdm(total=1.0, file=stream, leave=False, dynamic_ncols=True, bar_format=CLOCK, delay=1e-9)
            self._bar.start_t = self._began
            self._kept.enter_context(logging_redirect_tqdm())  # what is announced stands above the bar
        self._bar.bar_format = BAR if self.share > 0.0 else CLOCK
        self._bar.n = min(self.share, 1.0)
        self._bar.set_description_str(self.doing, refresh=False)
        self._bar.refresh()


class Told:
    """Items whose number is known, one by one; of each it is told when it has been taken.

    Args:
        items: how many as `count` says.
        count: their number.
        work: is told.
    """

    def __init__(self, items: Iterable[Any], count: int, work: AtWork) -> None:
        self.items, self.count, self.work = items, count, work

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        for k, item in enumerate(self.items):
            self.work.tell(k / max(self.count, 1))
            yield item
        self.work.tell(1.0, "writing")


@contextmanager
def said_if_slow(line: str) -> Iterator[None]:
    """One line on stderr, if the block takes longer than a moment; where that is no terminal, only if it takes long.

    Args:
        line: what is going on.
    """
    over, stream = threading.Event(), sys.stderr

    def wait() -> None:
        if not over.wait(QUIET_SECONDS if stream.isatty() else LINE_SECONDS):
            print(line, file=stream, flush=True)

    thread = threading.Thread(target=wait, name="said if slow", daemon=True)
    if stream is not None:  # None where a shell closed it
        thread.start()
    try:
        yield
    finally:
        over.set()
        if stream is not None:
            thread.join()
