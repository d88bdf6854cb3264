"""Who may look at the page, and who may change a run or download: the printed address and its token, as Jupyter's.

Every user of a machine can connect to its loopback addresses. The token tells who can read the terminal from who
cannot. It is in no file: neither `config.yaml` nor any other file of a run names it.
"""

import hmac
import ipaddress
import os
import re
import secrets
import time
from urllib.parse import parse_qs

from ..errors import ViewerError

TOKEN_VARIABLE = "MNIST3D_TOKEN"  # a flag would show the token to all users, in the list of processes
TOKEN_PATTERN = r"[A-Za-z0-9_-]{16,128}"  # what an address takes as it is; too long to be tried out
TOKEN_BYTES = 16  # of chance; no terminal breaks a link at a hexadecimal digit
ONCE_SECONDS = 60.0  # that a browser may take to start
REFUSED = "open the address that the terminal printed: it ends in ?token=..."
# A reload asks without the token, which the page has taken out of the address; so this one puts it back, once.
REFUSED_PAGE = f"""<!doctype html>
<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>mnist3d</title>
<style>body {{ font: 16px/1.4 system-ui, sans-serif; margin: 2em; }}</style>
<p>This page needs its token: {REFUSED}</p>
<script>
let token = null;
try {{ token = sessionStorage.getItem("token"); }} catch {{ }}
if (token && !location.search) location.replace("?token=" + encodeURIComponent(token) + location.hash);
</script>
"""


class Access:
    """What is allowed to whom.

    Args:
        read_only: nobody may change a run or download, with the token or without.

    Raises:
        ViewerError: the environment names a token that is none.
    """

    def __init__(self, read_only: bool = False) -> None:
        chosen = os.environ.get(TOKEN_VARIABLE, "")
        if chosen and not re.fullmatch(TOKEN_PATTERN, chosen):  # a secret: the message does not repeat it
            raise ViewerError(f"{TOKEN_VARIABLE}: must be 16 to 128 letters, digits, - and _; it has {len(chosen)}")
        self.token = chosen or secrets.token_hex(TOKEN_BYTES)
        self.read_only, self.local, self.address = read_only, False, ""
        self._chosen = bool(chosen)
        self._once, self._once_until = "", 0.0

    def listens_on(self, host: str, numbers: str, port: int) -> None:
        """Note where the viewer listens; on a loopback address, one may look without the token.

        Args:
            host: as the user named it.
            numbers: the address that this is.
            port: there.
        """
        self.local = ipaddress.ip_address(numbers.partition("%")[0]).is_loopback
        shown = "127.0.0.1" if host in ("0.0.0.0", "::", "localhost") else f"[{host}]" if ":" in host else host
        self.address = f"http://{shown}:{port}/"

    @property
    def url(self) -> str:
        """What to open: with the token."""
        return f"{self.address}?token={self.token}"

    @property
    def printed_url(self) -> str:
        """The same for a terminal or a log, which need not repeat a token that the user has chosen."""
        return f"{self.address}?token=..." if self._chosen else self.url

    def url_for_browser(self) -> str:
        """The same to start a browser with; everybody can read its arguments, and so it opens the page once."""
        self._once, self._once_until = secrets.token_hex(TOKEN_BYTES), time.monotonic() + ONCE_SECONDS
        return f"{self.address}?once={self._once}"

    def who_can_open(self, live: bool) -> str:
        """What the token protects where other machines reach the page, in a line for the terminal.

        Args:
            live: whether there is a run in training.
        """
        can = "watch" if self.read_only else "watch, pause and stop this run" if live else "look and download"
        return f"whoever has this address can {can}; without its token, nobody sees anything"

    def knows(self, query: str) -> bool:
        """Whether the query of an address has the token."""
        return _same(_value(query, "token"), self.token)

    def may_open(self, query: str) -> bool:
        """Whether the page is shown."""
        return self.local or self.knows(query)

    def may_look(self, query: str, origin: str | None) -> bool:
        """Whether a web socket is opened; what is no browser sends no Origin header, and needs the token everywhere.

        Args:
            query: of the socket's address.
            origin: the Origin header, checked before, or None.
        """
        return self.knows(query) or (self.local and origin is not None)

    def may_act(self, query: str) -> bool:
        """Whether a page may change the run and download."""
        return self.knows(query) and not self.read_only

    def why_not(self, live: bool) -> str:
        """Why a page may not act, for its reader.

        Args:
            live: whether it looks at a run in training.
        """
        if self.read_only:
            return "This page is read only."
        return f"Read only: open the printed address to {'pause or download' if live else 'download'}."

    def admits_once(self, query: str) -> bool:
        """Whether a browser comes with the query of `url_for_browser`, for the first and last time."""
        valid = bool(self._once) and time.monotonic() < self._once_until and _same(_value(query, "once"), self._once)
        if valid:
            self._once = ""
        return valid


def _value(query: str, name: str) -> str:
    return parse_qs(query).get(name, [""])[0]


def _same(given: str, secret: str) -> bool:
    """In a time that does not tell how much of it is right."""
    return hmac.compare_digest(given.encode(errors="replace"), secret.encode())
