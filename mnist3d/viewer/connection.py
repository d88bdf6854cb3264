"""A listening socket, and answers to plain HTTP requests. Neither knows what is shown."""

import errno
import socket
import sys
from typing import Any

PORTS_TRIED = 50
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class ViewerError(RuntimeError):
    """The page cannot be served; the message is one line that says why."""


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
