"""What tests of the viewer share: something to look at, and a page without a browser."""

import io
import json
import socket
import struct
import time

import numpy as np
import torch
from PIL import Image

from mnist3d.rendering.renderer import RendererOptions
from mnist3d.viewer import Scene, Snapshot, ViewerOptions
from mnist3d.volumes.voxel_grid import VoxelGrid
from mnist3d.volumes.wrappers import FrozenField

ANY_PORT = ViewerOptions(port=0)
PATIENCE = 120.0  # seconds: a busy machine is slow, and no test may hang for ever


def blob():
    """A grid without any symmetry."""
    generator = torch.Generator().manual_seed(3)
    grid = torch.rand(2, 13, 14, 15, generator=generator)
    grid[0] *= 6.0 * torch.linspace(0, 1, 15)
    return VoxelGrid.from_array(grid)


def scene(volume=None, name="blob", **more):
    return Scene(name, RendererOptions(16, 15), Snapshot(FrozenField(volume or blob()), 0, 7), **more)


class Client:
    """A page as the viewer sees it.

    Args:
        viewer: has a port.
        token: in its address; default the viewer's own.
    """

    def __init__(self, viewer, token=None, **more):
        from websockets.sync.client import connect

        token = viewer.access.token if token is None else token
        address = f"ws://127.0.0.1:{viewer.port}/socket{f'?token={token}' if token else ''}"
        patient = {"compression": None, "proxy": None, "open_timeout": PATIENCE, "close_timeout": 1}
        self._connection = connect(address, **patient, **more)
        self.socket = self._connection.__enter__()

    def close(self):
        self._connection.__exit__(None, None, None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def tell(self, **message):
        self.socket.send(json.dumps(message))

    def next(self, kind, timeout=PATIENCE):
        """The next message of a kind: header and image."""
        until = time.monotonic() + timeout
        while True:
            data = self.socket.recv(timeout=max(0.01, until - time.monotonic()))
            self.tell(received=1)
            (length,) = struct.unpack(">I", data[:4])
            head = json.loads(data[4 : 4 + length])
            if head["kind"] == kind:
                body = data[4 + length :]
                return head, np.asarray(Image.open(io.BytesIO(body))) if body else np.zeros((0, 0))


def wait_until(condition, seconds=PATIENCE):
    """As long as it takes, but not for ever."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "never came"
        time.sleep(0.01)


def get(viewer, path, **headers):
    """Status and body, the path exactly as given."""
    lines = [f"GET {path} HTTP/1.1", *(f"{k}: {v}" for k, v in {"Host": f"127.0.0.1:{viewer.port}", **headers}.items())]
    with socket.create_connection(("127.0.0.1", viewer.port), timeout=PATIENCE) as raw:
        raw.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body
