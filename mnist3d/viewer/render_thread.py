"""The one thread that draws.

A loop that draws the view of the page that has waited longest, and in between reads views and draws the map, within the
allowance of processor time. It hands bytes to a page.
"""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol, get_args, runtime_checkable

import torch

from ..rendering.shading import Shading, StyleName
from .cpu_budget import BURST_SECONDS, Allowance, Turns
from .drawing import drawn_view
from .live import Live
from .messages import pack
from .readings import map_rows, reading_message
from .scene import Atlas, Lit, Scene, Snapshot, View

SECONDS_BETWEEN_FRAMES = 0.2  # of a training that goes on by itself
SECONDS_BETWEEN_READINGS = 2.0
SECONDS_BETWEEN_MAPS = 5.0  # from the beginning of one to that of the next
# Of what a training that goes on leaves for views that nobody turns. A map of the default run takes .4 s: at the
# default allowance of .02 some 30 s.
SHARES = {"reading": 0.15, "view": 0.25, "map": 0.6}
RESERVE_SECONDS = 0.5 * BURST_SECONDS  # left for a hand
# Of the allowance, where nothing is saved: what newer volumes, readings and the map have, and no hand can take. The
# rest is the hand's, and while nobody turns anything it is saved for the next one.
KEPT_UNDER_A_HAND, KEPT_AT_REST = 0.5, 0.9
KEPT_SECONDS = 0.05  # saved up of either at most
HAND_SECONDS = 2.0  # after its last view a hand may still be there
LONGEST_WAIT = 0.5  # s, that these wait for a hand where the allowance has no limit
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
    read: tuple[View, int] | None  # the same of the last reading, the view as it is read
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
        self._kept = allowance.part(KEPT_AT_REST, KEPT_SECONDS)
        self._hands = allowance.part(1.0 - KEPT_AT_REST, KEPT_SECONDS)
        self._turns = Turns(SHARES)
        self._rested_at, self._turned_at = time.monotonic(), -HAND_SECONDS
        self._map_work: Iterator[bool] | None = None
        self._pixel_seconds = dict.fromkeys(get_args(StyleName), 0.0)
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
                wait = self._paid_turn()
                if wait > 0.0:
                    self._wake.wait(wait)
        except Exception as error:  # whatever it was, the training must not notice
            self._on_failure(f"the viewer has stopped drawing: {' '.join(str(error).split())[:200]}")

    def _paid_turn(self) -> float:
        began = time.thread_time()
        wait = self._turn()
        self._allowance.pay(time.thread_time() - began)
        return wait

    def _turn(self) -> float:
        """Do the most urgent thing; seconds until there may be another, 0 for at once."""
        pages = [page for page in self._pages() if page.view is not None and page.has_room()]
        now, saved = time.monotonic(), self._allowance.saved()
        if self._live is not None and pages and max(saved, self._kept.saved()) > 0.0:
            self._live.refresh()
        for page in pages:
            _hand_over_map(page)
        turned = sorted(filter(_is_turned, pages), key=lambda page: page.drawn_at)
        self._turned_at = now if turned else self._turned_at
        self._split(KEPT_AT_REST if now - self._turned_at > HAND_SECONDS else KEPT_UNDER_A_HAND)
        if not turned:
            self._rested_at = now
        elif self._allowance.unlimited and now - self._rested_at >= LONGEST_WAIT:  # under a hand that never rests
            self._rested_at = now
            if self._work_at_rest(pages, now):
                return 0.0
        unread = [page for page in pages if not page.view.moving and _wants_first_reading(page)]
        if (turned or unread) and max(saved, self._hands.saved()) > 0.0:
            began = time.thread_time()
            if turned:  # one at a time, so that each is paid before the next
                self._draw(turned[0], turned[0].view, turned[0].scene.snapshot)
            else:
                self._guarded(unread[0], self._read)
            if saved <= 0.0:
                self._hands.pay(time.thread_time() - began)
            return 0.0
        # The rest from what is well saved up, so that a hand on the mouse finds something; or from what is kept for it,
        # so that no hand and no number of pages can use up all.
        well = saved >= RESERVE_SECONDS
        if well or self._kept.saved() > 0.0:
            began = time.thread_time()
            if self._work_at_rest(pages, now):
                if not well:
                    self._kept.pay(time.thread_time() - began)
                return 0.0
        return IDLE_SECONDS if all(map(self.is_done, pages)) else POLL_SECONDS

    def _split(self, kept: float) -> None:
        self._kept.share, self._hands.share = kept * self._allowance.share, (1.0 - kept) * self._allowance.share

    def is_done(self, page: Page) -> bool:
        """Whether a page shows the newest volume: view, reading and map. Any thread may ask."""
        scene, view = page.scene, page.view
        if view is None:
            return True
        atlas, version = scene.atlas, scene.snapshot.version
        drawn = page.drawn == (view, version) and (scene.reader is None or page.read == (view.as_read, version))
        mapped = atlas is not None and atlas.whole and atlas.snapshot is scene.snapshot and page.atlas is atlas
        return drawn and mapped

    def _work_at_rest(self, pages: list[Any], now: float) -> bool:
        """A newer volume in a view that nobody turns, a reading, or a row of the map: whose turn it is."""
        ready: dict[str, Callable[[], None]] = {}
        for page in sorted(pages, key=lambda page: page.drawn_at):
            view, snapshot = page.view, page.scene.snapshot
            newer = not _is_turned(page) and page.drawn[1] != snapshot.version
            if newer and now - page.drawn_at >= SECONDS_BETWEEN_FRAMES:
                ready.setdefault("view", partial(self._draw, page, view, snapshot))
        for page in sorted(pages, key=lambda page: page.read_at):
            if self._wants_reading(page, now):
                ready.setdefault("reading", partial(self._guarded, page, self._read))
            if self._map_work is not None or self._wants_map(page.scene, now):
                ready.setdefault("map", partial(self._guarded, page, self._map_row))
        if not ready:
            return False
        kind, began = self._turns.choose(ready), time.thread_time()
        ready[kind]()
        self._turns.pay(kind, time.thread_time() - began)
        return True

    def _guarded(self, page: Page, work: Callable[[Page], None]) -> None:
        with contextlib.suppress(Exception):  # anybody's volume; not tried again before another snapshot or view
            work(page)

    def _wants_reading(self, page: Page, now: float) -> bool:
        if page.scene.reader is None or page.view is None:
            return False
        if not page.view.moving and _wants_first_reading(page):
            return True
        pause = 0.0 if self._allowance.unlimited and not page.view.moving else SECONDS_BETWEEN_READINGS
        return page.read != (page.view.as_read, page.scene.snapshot.version) and now - page.read_at >= pause

    def _read(self, page: Page) -> None:
        view, snapshot = page.view, page.scene.snapshot
        assert view is not None
        page.read, page.read_at = (view.as_read, snapshot.version), time.monotonic()
        page.send(reading_message(page.scene, snapshot, view))

    def _wants_map(self, scene: Scene, now: float) -> bool:
        last = scene.atlas
        if last is None or last.reader is not scene.reader:  # none yet, or somebody else reads by now
            return True
        pause = 0.0 if self._allowance.unlimited else SECONDS_BETWEEN_MAPS
        return last.snapshot is not scene.snapshot and now - last.began >= pause

    def _map_row(self, page: Page) -> None:
        rows = self._map_work or map_rows(page.scene, time.monotonic())
        self._map_work = None  # what fails is not gone on with
        if next(rows, None) is not None:
            self._map_work = rows

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
        if self._allowance.saved() >= RESERVE_SECONDS or known == 0.0:
            return size
        affordable = int(math.sqrt(MOVING_SECONDS / known) / view.zoom)
        return min(size, max(affordable, SMALLEST_MOVING))


def _is_turned(page: Page) -> bool:
    return page.drawn is None or page.drawn[0] != page.view


def _wants_first_reading(page: Page) -> bool:
    """Of a view that is seen from elsewhere than the one that was read last."""
    if page.scene.reader is None or page.view is None:
        return False
    return page.read is None or page.read[0] != page.view.as_read


def _hand_over_map(page: Page) -> None:
    atlas, sent = page.scene.atlas, page.atlas
    if atlas is None or not atlas.message or sent is atlas:
        return
    page.atlas = atlas
    if sent is None or sent.message is not atlas.message:
        page.send(atlas.message)


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
