"""One page that is open: what it looks at, what it was sent, and what waits for it."""

import asyncio
import threading
from typing import Any

from .scene import Atlas, Scene, View

MAX_UNREAD = 3  # messages that a page was sent and has not yet said to have received
MAX_OUTBOX = 32  # messages that wait for a page


class Session:
    """One page that is open.

    Args:
        scene: what it looks at first.
        loop: of the server.
    """

    def __init__(self, scene: Scene, loop: asyncio.AbstractEventLoop) -> None:
        self.scene = scene
        self.view: View | None = None
        self.drawn: tuple[View, int] | None = None
        self.drawn_at = 0.0
        self.read: tuple[View, int] | None = None
        self.read_at = 0.0
        self.atlas: Atlas | None = None
        self.figures: dict[str, Any] | None = None
        self.making_file = False
        self.ticket: str | None = None
        self._loop = loop
        self._unread = 0
        self._counting = threading.Lock()  # a lost count would silence the page for good
        self.outbox: asyncio.Queue[bytes] = asyncio.Queue()

    def has_room(self) -> bool:
        """Whether the page has taken in what it was sent; keeps the outbox of one that never reads small."""
        return self._unread < MAX_UNREAD and self.outbox.qsize() < MAX_UNREAD

    def send(self, message: bytes) -> None:
        """Hand over a message; any thread, never waits."""
        if self.outbox.qsize() >= MAX_OUTBOX:  # asks and asks, and never reads the answers
            return
        with self._counting:
            self._unread += 1
        try:
            self._loop.call_soon_threadsafe(self.outbox.put_nowait, message)
        except RuntimeError:  # the server has closed
            return

    def received(self, count: int) -> None:
        """The page has taken in so many more."""
        with self._counting:
            self._unread = max(0, self._unread - count)

    def look_at(self, scene: Scene) -> None:
        """Another scene from now on."""
        self.scene, self.drawn, self.read, self.atlas, self.figures = scene, None, None, None, None
