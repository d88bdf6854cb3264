"""Who may talk to the viewer, how much of it, and answers to plain HTTP requests. It does not know what is shown.

A web page of somebody else, open in the same browser, could otherwise reach it: directly, as web sockets know no
same-origin rule (the Origin header tells), or by giving its own name this machine's address (the Host header tells).
"""

import asyncio
import errno
import ipaddress
import socket
import sys
from typing import Any
from urllib.parse import urlsplit

from ..errors import ViewerError


def may_connect(host: str, origin: str | None, listening: str) -> str:
    """Why a request is refused, in one line; empty when it is not.

    Args:
        host: its Host header.
        origin: its Origin header, None without one (no browser, or a plain visit).
        listening: the address that the viewer was told to listen on.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
        same = origin is None or urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return "this request's Host header is not an address"
    if any(letter in host for letter in " ;,\"'<>\\/?#@"):  # it is quoted in a response header
        return "this request's Host header is not an address"
    own = {"localhost", listening.lower(), socket.gethostname().lower()}
    if name not in own and not _is_address(name):
        return f"the viewer does not go by the name {name[:80]!r}; open it by its address or as localhost"
    return "" if same else "another site's page may not talk to the viewer"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


PORTS_TRIED = 50
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def listen(host: str, port: int) -> socket.socket:
    """A listening socket on the port or the next free one."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise ViewerError(f"viewer.host={host}: no such address ({error}); give one of this machine's") from None
    last = min(port + PORTS_TRIED, 65536)
    for candidate in [*range(port, last), 0] if port else [0]:
        found = socket.socket(family, kind, protocol)
        try:
            if sys.platform != "win32":  # there it would let two programs share a port
                found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind((address[0], candidate, *address[2:]))
            found.listen(64)
            return found
        except OSError as error:
            found.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise ViewerError(f"viewer.host={host}: cannot listen there ({error.strerror})") from None
    raise ViewerError(f"viewer.port={port}: neither it nor the next {PORTS_TRIED} are free; 0 takes any")


def response(status: int, body: bytes | str, media: str = "text/plain; charset=utf-8", more: Any = None) -> Any:
    """An answer of websockets' own kind, with the headers that every answer here carries."""
    from http import HTTPStatus

    from websockets.datastructures import Headers
    from websockets.http11 import Response

    content = body.encode() if isinstance(body, str) else body
    headers = {**HEADERS, "Content-Type": media, "Content-Length": str(len(content)), "Connection": "close"}
    return Response(status, HTTPStatus(status).phrase, Headers({**headers, **(more or {})}), content)


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
