"""The files that a page can download: each file's content, made of a snapshot.

A table of names, and one function for each. Nothing is written into a run; a file that a library must write to disk
first lies in a temporary folder until it is read.
"""

import dataclasses
import importlib.util
import io
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from ..export.video import write_orbit
from ..rendering.shading import Shading
from ..volumes.base import Volume
from ..volumes.files import volume_bytes
from .drawing import drawn_view
from .messages import png
from .scene import Scene, Snapshot, View

ORBIT_FRAMES, ORBIT_FPS = 120, 24
ORBIT_SIZES = (64, 512)  # pixels

Pace = Callable[[], None]


@dataclass(frozen=True)
class Order:
    """What a page asked for.

    Args:
        scene: of what.
        snapshot: at which moment.
        view: as the page shows it.
        pace: called between pieces of the work, and may wait.
    """

    scene: Scene
    snapshot: Snapshot
    view: View
    pace: Pace


def _view_png(order: Order) -> bytes:
    return png(drawn_view(order.snapshot, order.scene.renderer, order.view, shading=_shading(order)))


def _shading(order: Order) -> Shading | None:
    """Of the snapshot, the render thread's where it has one; None for exact views."""
    if order.view.style == "exact":
        return None
    lit = order.scene.lit
    return lit.shading if lit is not None and lit.snapshot is order.snapshot else Shading(order.snapshot.volume)


def _orbit_mp4(order: Order) -> bytes:
    """Once around, at the page's elevation, with the page's sliders, beginning where the page looks from."""
    size = min(max(order.view.size, ORBIT_SIZES[0]), ORBIT_SIZES[1])
    shading = _shading(order)

    def frames() -> Iterator[UInt8[np.ndarray, "..."]]:
        for k in range(ORBIT_FRAMES):
            azimuth = order.view.azimuth + 2.0 * np.pi * k / ORBIT_FRAMES
            view = dataclasses.replace(order.view, azimuth=azimuth)
            yield drawn_view(order.snapshot, order.scene.renderer, view, size, shading)
            order.pace()

    return _written(".mp4", lambda path: write_orbit(path, frames(), ORBIT_FPS))


def _safetensors(order: Order) -> bytes:
    extra = {"step": order.snapshot.step, "renderer": dataclasses.asdict(order.scene.renderer)}
    volume = order.snapshot.volume.field
    if not isinstance(volume, Volume):
        raise ValueError(f"a {type(volume).__name__} is no volume, so there is nothing to save")
    return volume_bytes(volume, extra)


def _page(order: Order) -> bytes:
    from ..export.page import page_html

    return page_html(order.snapshot.volume, order.scene.renderer, order.scene.name).encode()


def _written(suffix: str, write: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="mnist3d-") as folder:
        path = Path(folder) / f"file{suffix}"
        write(path)
        return path.read_bytes()


def _voxels(suffix: str) -> Callable[[Order], bytes]:
    """Voxels for other tools; a format of several files as one zip."""

    def made(order: Order) -> bytes:
        from ..export.voxels import export_voxels

        with tempfile.TemporaryDirectory(prefix="mnist3d-") as folder:
            export_voxels(order.snapshot.volume, Path(folder) / f"volume{suffix}")
            files = sorted(Path(folder).iterdir())
            data = [path for path in files if path.suffix != ".json"]
            if len(data) == 1:
                return data[0].read_bytes()
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
                for path in files:
                    archive.write(path, path.name)
            return buffer.getvalue()

    return made


DOWNLOADS: dict[str, Callable[[Order], bytes]] = {
    "view.png": _view_png,
    "orbit.mp4": _orbit_mp4,
    "volume.safetensors": _safetensors,
    "volume.nrrd.zip": _voxels(".nrrd"),
    "volume.vdb": _voxels(".vdb"),
    "sculpture.html": _page,
}
NEEDS = {"volume.nrrd.zip": "nrrd"}  # libraries
MEDIA_TYPES = {".png": "image/png", ".mp4": "video/mp4", ".html": "text/html; charset=utf-8"}


def make(name: str, order: Order) -> bytes:
    """The content of a file.

    Raises:
        KeyError: no file has that name.
        ValueError, RuntimeError, OSError: it cannot be made; one line.
    """
    return DOWNLOADS[name](order)


def available() -> list[str]:
    """The names of the files that can be made here: those whose libraries are installed."""
    return [name for name in DOWNLOADS if name not in NEEDS or _there(NEEDS[name])]


@cache
def _there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
