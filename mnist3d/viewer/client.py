"""One page that is open: what it looks at, what it was sent, and what waits for it."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from .scene import Atlas, Reader, Scene, View

MAX_UNREAD = 3  # messages that a page was sent and has not yet said to have received
MAX_OUTBOX = 4 * 2**20  # bytes that wait for a page: some four of the largest views
MESSAGE_OVERHEAD = 256  # bytes that a message takes beside its own, so that small ones count too


class Session:
    """One page that is open.

    Args:
        scene: what it looks at first.
        loop: of the server.
        may_act: whether it may change the run and download.
    """

    def __init__(self, scene: Scene, loop: asyncio.AbstractEventLoop, may_act: bool = False) -> None:
        self.scene, self.may_act = scene, may_act
        self.view: View | None = None
        self.drawn: tuple[View, int] | None = None
        self.drawn_at = 0.0
        self.read: tuple[View, int] | None = None
        self.read_at = 0.0
        self.atlas: Atlas | None = None
        self.reader: Reader | None = scene.reader  # that it was told of
        self.figures: dict[str, Any] | None = None
        self.making_file = False
        self.ticket: str | None = None
        self._loop = loop
        self._unread = 0
        self._counting = threading.Lock()  # a lost count would silence the page for good
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._waiting = self.waiting_bytes = 0

    def has_room(self) -> bool:
        """Whether the page has taken in what it was sent; keeps the outbox of one that never reads small."""
        return self._unread < MAX_UNREAD and self._waiting < MAX_UNREAD

    def send(self, message: bytes) -> None:
        """Hand over a message; any thread, never waits. Dropped where too much waits already: asked for, never read."""
        size = len(message) + MESSAGE_OVERHEAD
        with self._counting:
            if self._waiting and self.waiting_bytes + size > MAX_OUTBOX:
                return
            self._unread += 1
            self._waiting += 1
            self.waiting_bytes += size
        try:
            self._loop.call_soon_threadsafe(self._outbox.put_nowait, message)
        except RuntimeError:  # the server has closed
            return

    async def post(self, deliver: Callable[[bytes], Awaitable[None]]) -> None:
        """Deliver what waits, one message after the other, until cancelled.

        Args:
            deliver: returns once the connection has taken the message; until then it counts as waiting.
        """
        while True:
            message = await self._outbox.get()
            await deliver(message)
            with self._counting:
                self._waiting -= 1
                self.waiting_bytes -= len(message) + MESSAGE_OVERHEAD

    def received(self, count: int) -> None:
        """The page has taken in so many more."""
        with self._counting:
            self._unread = max(0, self._unread - count)

    def look_at(self, scene: Scene) -> None:
        """Another scene from now on."""
        self.scene, self.drawn, self.read, self.atlas, self.figures = scene, None, None, None, None
