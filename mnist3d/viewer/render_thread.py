"""The one thread that draws.

A loop that looks for the page whose view is oldest, draws it, and in between draws atlases and reads views, within
the allowance of processor time. It hands bytes to a page.
"""

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, get_args, runtime_checkable

import numpy as np
import torch

from ..geometry.rotations import map_rotations
from ..rendering.pictures import to_uint8
from ..rendering.renderer import AbsorptionRenderer, render_views
from ..rendering.shading import Shading, StyleName
from .cpu_budget import BURST_SECONDS, Allowance
from .drawing import drawn_view, rendered_view
from .live import Live
from .messages import pack
from .scene import Atlas, Lit, Scene, Snapshot, View

ATLAS_ROWS, ATLAS_COLUMNS = 12, 24  # 15 degrees
ATLAS_CELL = 28  # pixels
LARGEST_UNREAD = 4 * ATLAS_CELL  # of a view on the map that nobody reads; a row of large ones is gigabytes
SECONDS_BETWEEN_FRAMES = 0.2  # of a training that goes on by itself
SECONDS_BETWEEN_READINGS = 1.0
SECONDS_BETWEEN_ATLASES = 20.0
SHADED_SHARE = 0.5  # of the allowance, for shaded views of a training that goes on by itself; the map needs the rest
MOVING_SECONDS = 0.006  # what a view may take while it is turned and the saved time runs low
SMALLEST_MOVING = 64  # pixels
MOST_MAGNIFIED = 384  # pixels of the whole view while a part of it is turned: a larger one would lag behind the hand
IDLE_SECONDS = 0.5
POLL_SECONDS = 0.1  # while the allowance is used up


@runtime_checkable
class Page(Protocol):
    """A page that is open, as the render thread sees it."""

    scene: Scene
    view: View | None
    drawn: tuple[View, int] | None  # the last one: view and version
    drawn_at: float
    read: tuple[View, int] | None  # the same of the last reading
    read_at: float
    atlas: Atlas | None  # the map that it was sent last

    def has_room(self) -> bool:
        """Whether the page has taken in what it was sent."""
        ...

    def send(self, message: bytes) -> None:
        """Hand over a message; never waits."""
        ...


def one_thread() -> None:
    """Let the calling thread compute alone, and leave every other thread's number of threads as it is.

    torch.set_num_threads sets the calling thread's number and the one that threads yet to come begin with; another
    thread sets the latter back.
    """
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    restorer = threading.Thread(target=torch.set_num_threads, args=(usual,))
    restorer.start()
    restorer.join()


class Painter:
    """Draws for all pages.

    Args:
        pages: those that are open, asked for again and again.
        allowance: of processor time.
        live: the run in training, or None.
        on_failure: told once, in one line, when drawing has ended for good.
    """

    def __init__(
        self,
        pages: Callable[[], list[Any]],
        allowance: Allowance,
        live: Live | None = None,
        on_failure: Callable[[str], None] = print,
    ) -> None:
        self._pages, self._allowance, self._live, self._on_failure = pages, allowance, live, on_failure
        self._wake = threading.Event()
        self._closing = False
        self._atlas_work: Iterator[None] | None = None
        self._pixel_seconds = dict.fromkeys(get_args(StyleName), 0.0)
        self._shaded_seconds = 0.0  # of the last view with a shading of its own
        self._thread = threading.Thread(target=self._run, name="mnist3d-painter", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Something has changed; any thread may say so."""
        self._wake.set()

    def close(self) -> None:
        """End, and wait until the thread has ended."""
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10.0)

    def _run(self) -> None:
        try:
            one_thread()
            while not self._closing:
                self._wake.clear()
                began = time.thread_time()
                wait = self._turn()
                self._allowance.pay(time.thread_time() - began)
                if wait > 0.0:
                    self._wake.wait(wait)
        except Exception as error:  # whatever it was, the training must not notice
            self._on_failure(f"the viewer has stopped drawing: {' '.join(str(error).split())[:200]}")

    def _turn(self) -> float:
        """Do the most urgent thing; seconds until there may be another, 0 for at once."""
        pages = self._pages()
        if self._live is not None and pages and self._allowance.saved() > 0.0:
            self._live.refresh()
        now, wait = time.monotonic(), IDLE_SECONDS
        for page in sorted(pages, key=lambda page: page.drawn_at):
            view, snapshot = page.view, page.scene.snapshot
            if view is None or not page.has_room() or page.drawn == (view, snapshot.version):
                continue
            turned = page.drawn is None or page.drawn[0] != view
            due = 0.0 if turned else page.drawn_at + self._pause_after(view) - now
            if due <= 0.0 and self._allowance.saved() > 0.0:
                self._draw(page, view, snapshot)
                return 0.0  # one at a time, so that each is paid before the next
            wait = min(wait, max(due, POLL_SECONDS))
        # The rest only from what is well saved up, so that a hand on the mouse never waits for it.
        try:
            if self._allowance.saved() >= 0.5 * BURST_SECONDS and self._read_or_map(pages):
                return 0.0
        except Exception:  # anybody's volume; not tried again before there is another snapshot or view
            self._atlas_work = None
        return wait

    def _pause_after(self, view: View) -> float:
        """Seconds until a view that nobody turns is drawn again, of newer weights."""
        if view.style == "exact" or self._allowance.unlimited:
            return SECONDS_BETWEEN_FRAMES
        return max(SECONDS_BETWEEN_FRAMES, self._shaded_seconds / (SHADED_SHARE * self._allowance.share))

    def _draw(self, page: Page, view: View, snapshot: Snapshot) -> None:
        # Noted first: what fails once is not tried again until something changes.
        page.drawn, page.drawn_at = (view, snapshot.version), time.monotonic()
        size = self._size(view)
        began = time.thread_time()
        try:
            lit = None if view.style == "exact" else self._lit(page.scene, snapshot, view)
            lit_at = time.thread_time()
            message = _frame(page.scene, snapshot if lit is None else lit.snapshot, view, size, lit)
        except Exception as error:  # anybody's volume, and the other pages go on
            lit_at = began
            message = pack({"kind": "problem", "text": f"cannot be drawn: {' '.join(str(error).split())[:200]}"})
        ended = time.thread_time()
        if lit_at > began:
            self._shaded_seconds = ended - began
        cost, known = (ended - lit_at) / (size * view.zoom) ** 2, self._pixel_seconds[view.style]
        self._pixel_seconds[view.style] = cost if known == 0.0 else 0.8 * known + 0.2 * cost
        page.send(message)

    def _lit(self, scene: Scene, snapshot: Snapshot, view: View) -> Lit:
        """The scene's shading; of an older snapshot while the view is turned, as a new one takes longer than a view."""
        if scene.lit is None or (scene.lit.snapshot is not snapshot and not view.moving):
            scene.lit = Lit(snapshot, Shading(snapshot.volume))
        return scene.lit

    def _size(self, view: View) -> int:
        if not view.moving:
            return view.size
        size = min(view.size, max(SMALLEST_MOVING, round(MOST_MAGNIFIED / view.zoom))) if view.zoom > 1.0 else view.size
        known = self._pixel_seconds[view.style]
        if self._allowance.saved() >= 0.5 * BURST_SECONDS or known == 0.0:
            return size
        affordable = int(math.sqrt(MOVING_SECONDS / known) / view.zoom)
        return min(size, max(affordable, SMALLEST_MOVING))

    def _read_or_map(self, pages: list[Any]) -> bool:
        now = time.monotonic()
        for page in pages:
            view, snapshot = page.view, page.scene.snapshot
            if view is None or view.moving or not page.has_room():
                continue
            if page.scene.reader is not None and page.read != (view, snapshot.version):
                turned = page.read is None or page.read[0] != view
                if turned or now - page.read_at >= SECONDS_BETWEEN_READINGS:
                    page.read, page.read_at = (view, snapshot.version), now
                    page.send(_reading(page.scene, snapshot, view))
                    return True
            if self._map(page, now):
                return True
        return False

    def _map(self, page: Page, now: float) -> bool:
        scene, snapshot = page.scene, page.scene.snapshot
        if self._atlas_work is not None:
            if next(self._atlas_work, None) is None:
                self._atlas_work = None
            return True
        ready = scene.atlas
        if ready is not None and ready.message and page.atlas is not ready:
            page.atlas = ready
            page.send(ready.message)
            return True
        same = ready is not None and ready.reader is scene.reader  # else another one has come meanwhile
        if ready is not None and same and (ready.snapshot is snapshot or now - ready.began < SECONDS_BETWEEN_ATLASES):
            return False
        # Noted first: what fails once is not tried again with the same snapshot.
        scene.atlas = begun = Atlas(snapshot, now, scene.reader)
        self._atlas_work = self._atlas_rows(scene, begun)
        return True

    def _atlas_rows(self, scene: Scene, begun: Atlas) -> Iterator[Any]:
        """A row of the map at a time, so that others get their turn in between."""
        options, reader, labels, confidences = scene.renderer, begun.reader, [], []
        size = options.image_size if reader is not None else min(options.image_size, LARGEST_UNREAD)
        renderer = AbsorptionRenderer(size, options.samples_per_ray, options.quadrature)
        rotations = map_rotations(ATLAS_ROWS, ATLAS_COLUMNS).split(ATLAS_COLUMNS)
        cells = []
        for part in rotations:
            native = render_views(begun.snapshot.volume, renderer, part)
            if reader is not None and reader.class_names:
                verdict = reader.read(native)
                labels += verdict.label.tolist()
                confidences += [round(value, 2) for value in verdict.confidence.tolist()]
            sized = torch.nn.functional.interpolate(native, (ATLAS_CELL, ATLAS_CELL), mode="bilinear", antialias=True)
            cells.append(np.concatenate(list(to_uint8(sized[:, 0])), axis=1))
            yield part
        header = {
            "kind": "atlas",
            "rows": ATLAS_ROWS,
            "columns": ATLAS_COLUMNS,
            "labels": labels,
            "confidences": confidences,
            "names": [] if reader is None else reader.class_names,
        }
        scene.atlas = dataclasses.replace(begun, message=pack(header, np.concatenate(cells, axis=0)))


def _frame(scene: Scene, snapshot: Snapshot, view: View, size: int, lit: Lit | None) -> bytes:
    header = {
        "kind": "frame",
        "number": view.number,
        "azimuth": view.azimuth,
        "elevation": view.elevation,
        "zoom": view.zoom,
        "style": view.style,
        "step": snapshot.step,
        "version": snapshot.version,
        "scene": scene.name,
    }
    return pack(header, drawn_view(snapshot, scene.renderer, view, size, None if lit is None else lit.shading))


def _reading(scene: Scene, snapshot: Snapshot, view: View) -> bytes:
    """What the classifiers read in the exact view, whole and in the discriminator's number of pixels."""
    reader, exact = scene.reader, dataclasses.replace(view, zoom=1.0)
    assert reader is not None
    if not reader.class_names:
        return pack({"kind": "reading", "label": None, "guess": None, "confidence": 0.0})
    verdict = reader.read(rendered_view(snapshot, scene.renderer, exact, scene.renderer.image_size))
    label, names = int(verdict.label[0]), reader.class_names
    confidence = float(verdict.confidence[0])
    return pack(
        {
            "kind": "reading",
            "label": names[label] if label >= 0 and confidence > 0.5 else None,
            "guess": names[int(verdict.guess[0])],
            "confidence": round(confidence, 3),
        }
    )
