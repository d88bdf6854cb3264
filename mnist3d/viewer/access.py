"""Who may talk to the viewer.

A web page of somebody else, open in the same browser, could otherwise reach it: directly, as web sockets know no
same-origin rule (the Origin header tells), or by giving its own name this machine's address (the Host header tells).
"""

import ipaddress
import socket
from urllib.parse import urlsplit


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
