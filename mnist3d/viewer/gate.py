"""How much a stranger may ask of the process that trains: connections, unfinished requests, control frames.

What it is: a connection class for websockets' server. What it is not: it does not know who may connect (`access`).
Every connection is a file descriptor of a process that must still be able to save its volume, and what websockets reads
by itself, no pace in a handler can slow down.
"""

import asyncio
from typing import Any

MAX_CONNECTIONS = 64  # 16 pages, and what they fetch
REQUEST_SECONDS = 10.0  # until a request must be complete
MAX_PINGS = 100  # of a page; browsers send none
MAX_CARRIED = 256 * 2**20  # bytes of files that are on their way, unless it is a single file


class Gate:
    """What is open at the moment."""

    def __init__(self) -> None:
        self.open: dict[Any, int] = {}  # connection: bytes of a file that it carries

    def may_carry(self, connection: Any, size: int) -> bool:
        """Whether a file of that size may be sent now; notes it if so."""
        carried = sum(self.open.values())
        if carried and carried + size > MAX_CARRIED:
            return False
        self.open[connection] = size
        return True

    def connections(self) -> type:
        """The class of connections that pass here."""
        from websockets.asyncio.server import ServerConnection

        gate = self

        class Gated(ServerConnection):
            """Refuses before anything is read, and drops who sends what no page sends."""

            pings = 0

            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                if len(gate.open) >= MAX_CONNECTIONS:
                    assert isinstance(transport, asyncio.Transport)
                    transport.abort()
                    return
                gate.open[self] = 0
                self.loop.call_later(REQUEST_SECONDS, self._must_have_asked)
                super().connection_made(transport)

            def connection_lost(self, exc: Exception | None) -> None:
                if gate.open.pop(self, None) is not None:
                    super().connection_lost(exc)

            def _must_have_asked(self) -> None:
                if self.request is None:
                    self.transport.abort()

            def process_event(self, event: Any) -> None:
                """Pings are answered, and pieces of messages kept, without end and without anybody asking for them."""
                from websockets.frames import Opcode

                kind = getattr(event, "opcode", None)
                self.pings += kind is Opcode.PING
                in_pieces = kind is Opcode.CONT or (kind in (Opcode.TEXT, Opcode.BINARY) and not event.fin)
                if in_pieces or self.pings > MAX_PINGS:
                    self.transport.abort()
                    return
                super().process_event(event)

        return Gated
