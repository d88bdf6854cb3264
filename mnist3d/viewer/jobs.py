"""What takes longer than a view: files to download, runs to open. One thread, one thing at a time for each page.

A queue, its pace during training, and the files that wait to be fetched; `downloads` makes the files.
"""

import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .client import Session
from .cpu_budget import Allowance
from .downloads import Order, available, make
from .messages import pack
from .render_thread import one_thread
from .scene import View

FILE_SECONDS = 120.0  # that a file waits to be fetched
MAX_KEPT = 256 * 2**20  # bytes of files that wait, unless it is a single file
TRAINING_PACE = 3.0  # during training, work here rests this many times as long as it takes
MAX_REST = 20.0


class Workshop:
    """Longer jobs of the pages.

    Args:
        allowance: unlimited when nothing trains.
        is_open: whether a page still is.
    """

    def __init__(self, allowance: Allowance, is_open: Callable[[Session], bool]) -> None:
        self.files: dict[str, tuple[str, bytes, float]] = {}  # by ticket: name, content, since when
        self._allowance, self._is_open = allowance, is_open
        self._closing = threading.Event()
        self._worked_since = 0.0
        self._thread = ThreadPoolExecutor(1, "mnist3d-files", initializer=one_thread)

    def close(self) -> None:
        """Take no more; what is in hand ends soon, as the program's end waits for it."""
        self._closing.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def forget(self, session: Session) -> None:
        """A page has closed."""
        self.files.pop(session.ticket or "", None)

    def keep(self, session: Session, name: str, content: bytes) -> None:
        """Let a file wait to be fetched with the session's new ticket: one a page, and few bytes of all pages."""
        self.forget(session)
        waiting = sorted(self.files.items(), key=lambda item: item[1][2])
        kept = sum(len(held) for _, (_, held, _) in waiting)
        for ticket, (_, held, _) in waiting:
            if kept + len(content) <= MAX_KEPT:
                break
            self.files.pop(ticket, None)
            kept -= len(held)
        session.ticket = secrets.token_urlsafe(16)
        self.files[session.ticket] = (name, content, time.monotonic())
        if not self._is_open(session):  # closed in the meantime: nobody can ask for it any more
            self.forget(session)

    def drop_old(self) -> None:
        """Files that nobody has fetched."""
        for ticket, (_, _, made) in list(self.files.items()):
            if time.monotonic() - made > FILE_SECONDS:
                self.files.pop(ticket, None)

    def order(self, session: Session, name: str) -> None:
        """Make a file and tell the page where to fetch it; names that are not offered are ignored."""
        if name not in available():
            return
        view, scene = session.view or View(), session.scene

        def work() -> dict[str, Any]:
            content = make(name, Order(scene, scene.snapshot, view, self._rest))
            self.keep(session, name, content)
            return {"kind": "file", "name": name, "path": f"file/{session.ticket}/{name}"}

        self.run(session, work, f"{name} cannot be made: ")

    def run(self, session: Session, work: Callable[[], dict[str, Any] | None], complaint: str = "") -> None:
        """Do something for a page and send it what comes of it; nothing while it waits for something else.

        Args:
            session: the page.
            work: returns a message, or None when there is nothing to say.
            complaint: before the reason when it fails.
        """
        if session.making_file:
            return
        session.making_file = True
        try:
            self._thread.submit(self._do, session, work, complaint)
        except RuntimeError:  # closing
            return

    def _do(self, session: Session, work: Callable[[], dict[str, Any] | None], complaint: str) -> None:
        self._worked_since = time.thread_time()
        try:
            message = work()
        except Exception as error:  # somebody else's volume or a damaged run may fail in any way
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            message = {"kind": "problem", "text": complaint + reason}
        session.making_file = False  # before the page hears of it and asks for the next thing
        if message is not None:
            session.send(pack(message))
        if not self._closing.is_set():
            self._rest()

    def _rest(self) -> None:
        """Called between pieces of work: a page that asks without end must not slow the training down.

        Raises:
            RuntimeError: the viewer is closing.
        """
        worked = time.thread_time() - self._worked_since
        rest = 0.0 if self._allowance.unlimited else min(MAX_REST, TRAINING_PACE * worked)
        if self._closing.wait(rest):
            raise RuntimeError("the viewer is closing")
        self._worked_since = time.thread_time()
