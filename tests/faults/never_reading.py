"""What pages that never read cost: the memory of the program that serves them, before and while they are open.

    python tests/faults/never_reading.py               about a minute of one core
    python tests/faults/never_reading.py --seconds 20

Linux only. As many pages as may be open at once ask for the largest views, for the list of runs and for files, claim to
have received everything, and read nothing. A page that the server drops comes again. The
views are noise, which no PNG makes smaller, and take no time: as of a machine that draws faster than any.
"""

import argparse
import base64
import json
import os
import socket
import subprocess
import sys
import time

PAGES = 16
ALLOWED = 50e6  # bytes a page
SERVER = """
import sys, torch
from mnist3d.rendering.renderer import RendererOptions
from mnist3d.viewer import Scene, Snapshot, Viewer, ViewerOptions, render_thread
from mnist3d.volumes import VoxelGrid
from mnist3d.volumes.wrappers import FrozenField
noise = torch.rand(1, 1, 1024, 1024)
render_thread.rendered_view = lambda snapshot, options, view, size=None: noise
scene = Scene("noise", RendererOptions(28), Snapshot(FrozenField(VoxelGrid(8)), 0))
viewer = Viewer(ViewerOptions(port=0), first=scene)
viewer.start()
print(viewer.port, viewer.access.token, flush=True)
for _ in sys.stdin:
    print(viewer.pages, sum(page.waiting_bytes for page in viewer._sessions), flush=True)
"""


def frame(text: str) -> bytes:
    """One masked text frame of a web socket, as a client sends it."""
    content = text.encode()
    return bytes([0x81, 0x80 | 126]) + len(content).to_bytes(2, "big") + bytes(4) + content  # a mask of zeros


class Page:
    """A page that never reads.

    Args:
        port: of the viewer.
        token: of its address.
    """

    def __init__(self, port: int, token: str) -> None:
        self.port, self.token, self.number = port, token, 0
        self.wire: socket.socket | None = None
        self.opened = 0

    def speak(self) -> None:
        """Ask for more; connect anew where the server has hung up."""
        try:
            if self.wire is None:
                self.wire = socket.socket()
                self.wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # or the kernel keeps megabytes
                self.wire.settimeout(10.0)
                self.wire.connect(("127.0.0.1", self.port))
                key = base64.b64encode(os.urandom(16)).decode()
                asked = f"GET /socket?token={self.token} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
                asked += "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                self.wire.sendall(f"{asked}Sec-WebSocket-Key: {key}\r\n\r\n".encode())
                self.wire.settimeout(0.0)
                self.opened += 1
            self.number += 1
            view = {"size": 1024, "azimuth": 0.1 * self.number, "number": self.number}
            self.wire.send(frame(json.dumps({"view": view, "received": 1000, "do": "scenes"})))
            if self.number % 8 == 0:
                self.wire.send(frame(json.dumps({"do": "download", "name": "view.png"})))
        except BlockingIOError:
            return
        except OSError:
            if self.wire is not None:
                self.wire.close()
            self.wire = None


def resident(pid: int) -> int:
    """Bytes of memory of a process."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    """Measure, print one line of JSON; 1 where a page costs too much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="that the pages are open (default %(default)s)")
    options = parser.parse_args()
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        port, token = server.stdout.readline().split()
        before = highest = resident(server.pid)
        pages, most_open, most_waiting = [Page(int(port), token) for _ in range(PAGES)], 0, 0
        until = time.monotonic() + options.seconds
        while time.monotonic() < until:
            for page in pages:
                page.speak()
            time.sleep(0.25)
            highest = max(highest, resident(server.pid))
            server.stdin.write("\n")
            server.stdin.flush()
            opened, waiting = map(int, server.stdout.readline().split())
            most_open, most_waiting = max(most_open, opened), max(most_waiting, waiting)
    finally:
        server.kill()
        server.wait()
    each = (highest - before) / PAGES
    record = {
        "pages_open_at_once": most_open,
        "connections": sum(page.opened for page in pages),
        "views_asked_for": sum(page.number for page in pages),
        "waiting_for_them_at_most_mb": round(most_waiting / 1e6, 1),
        "memory_before_mb": round(before / 1e6, 1),
        "memory_at_most_mb": round(highest / 1e6, 1),
        "mb_each_page": round(each / 1e6, 2),
        "allowed_mb_each_page": ALLOWED / 1e6,
    }
    print(json.dumps(record))
    return int(most_open < PAGES or each >= ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
