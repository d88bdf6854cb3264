"""The page's other end: one address, one web socket a page, one thread that draws.

What it is: what starts, what listens, what ends. What it is not: it draws nothing itself (`painter`) and knows neither
trainer nor run directories. Nothing that a client sends can raise beyond its own connection.
"""

import asyncio
import logging
import secrets
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import PurePosixPath
from typing import Any

from .access import may_connect
from .allowance import Allowance, run_clock
from .connection import ViewerError, listen, response
from .downloads import MEDIA_TYPES, Order, available, make
from .live import Live
from .messages import Request, pack, parse_request
from .options import ViewerOptions
from .painter import Painter, one_thread
from .scene import Scene, Shelf, View
from .session import Session

MAX_PAGES = 16
MAX_MESSAGE = 4096  # bytes that a page may send at once
SECONDS_PER_MESSAGE = 0.008  # a page that talks faster than this waits
FIGURES_SECONDS = 0.5
FILE_SECONDS = 120.0  # that a file waits to be fetched
TRAINING_PACE = 3.0  # a download during training rests this many times as long as it works


class Viewer:
    """Serves the page until it is closed.

    Args:
        options: where.
        live: the run in training, or None.
        shelf: finished runs, or None.
        first: what a page looks at first; default the live run.
        say: where a line about a failure goes; default stderr.

    Raises:
        ViewerError: neither a live run nor a first scene.
    """

    def __init__(
        self,
        options: ViewerOptions | None = None,
        *,
        live: Live | None = None,
        shelf: Shelf | None = None,
        first: Scene | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        scene = first or (live.scene if live is not None else None)
        if scene is None:
            raise ViewerError("there is nothing to look at")
        self.options, self.live, self.shelf, self.first = options or ViewerOptions(), live, shelf, scene
        self._say = say or (lambda line: print(line, file=sys.stderr, flush=True))
        self.allowance = Allowance(self.options.share, run_clock())
        self.allowance.unlimited = live is None
        self._sessions: list[Session] = []
        self._files: dict[str, tuple[str, bytes, float]] = {}
        self._painter = Painter(lambda: list(self._sessions), self.allowance, live, self._say)
        self._files_thread = ThreadPoolExecutor(1, "mnist3d-files", initializer=one_thread)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name="mnist3d-viewer", daemon=True)
        self._html = resources.files(__package__ or "").joinpath("page.html").read_bytes()
        self.port = 0

    @property
    def url(self) -> str:
        """What to open."""
        host = self.options.host
        shown = "127.0.0.1" if host in ("0.0.0.0", "::", "localhost") else f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self.port}/"

    def start(self) -> str:
        """Listen; returns the address to open.

        Raises:
            ViewerError: no port is free, the address is not this machine's, or a package is missing.
        """
        try:
            import websockets.asyncio.server  # noqa: F401 - that it is there, before a thread needs it
        except ImportError as error:
            raise ViewerError(f"it needs the package websockets ({error}): pip install websockets") from None
        self._socket = listen(self.options.host, self.options.port)
        self.port = self._socket.getsockname()[1]
        self._thread.start()
        self._started.wait(10.0)
        if self._failure is not None or not self._started.is_set():
            self._socket.close()
            raise ViewerError(f"it did not start ({self._failure})")
        self._painter.start()
        return self.url

    def wake(self) -> None:
        """Something new is there to be drawn; any thread, takes no time."""
        self._painter.wake()

    @property
    def pages(self) -> int:
        """How many are open."""
        return len(self._sessions)

    def close(self) -> None:
        """Stop drawing and listening; pages that are open say so."""
        self._painter.close()
        self._files_thread.shutdown(wait=False, cancel_futures=True)
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(timeout=10.0)

    def _serve(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception as error:  # whatever it was, the training must not notice
            if self._started.is_set():
                self._say(f"the viewer has stopped: {' '.join(str(error).split())[:200]}")
            self._failure = error
        finally:
            self._started.set()
            self._sessions.clear()

    async def _main(self) -> None:
        from websockets.asyncio.server import serve

        quiet = logging.getLogger(f"{__name__}.connections")  # a hostile client must not fill the terminal
        quiet.propagate = False
        quiet.addHandler(logging.NullHandler())
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with serve(
            self._page,
            sock=self._socket,
            process_request=self._answer,
            compression=None,
            max_size=MAX_MESSAGE,
            max_queue=8,
            write_limit=2**16,
            open_timeout=10,
            ping_interval=20,
            ping_timeout=20,
            close_timeout=2,
            server_header=None,
            logger=quiet,
        ):
            self._started.set()
            await self._stop.wait()

    def _answer(self, connection: Any, request: Any) -> Any:
        """Plain HTTP: the page and files that a page has asked for; None goes on to a web socket."""
        host = request.headers.get("Host", "")
        refused = may_connect(host, request.headers.get("Origin"), self.options.host)
        if refused:
            return response(403, refused)
        path = PurePosixPath(request.path.partition("?")[0]).parts
        if path == ("/",):
            # Nothing from elsewhere is ever loaded, and the socket goes back where the page came from.
            policy = f"default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob: data:; \
connect-src 'self' ws://{host} wss://{host}; base-uri 'none'; form-action 'none'"
            return response(200, self._html, "text/html; charset=utf-8", {"Content-Security-Policy": policy})
        if path == ("/", "socket"):
            return response(503, "too many pages are open") if len(self._sessions) >= MAX_PAGES else None
        if len(path) == 4 and path[1] == "file" and path[2] in self._files:
            name, content, _ = self._files[path[2]]
            media = MEDIA_TYPES.get(PurePosixPath(name).suffix, "application/octet-stream")
            return response(200, content, media, {"Content-Disposition": f'attachment; filename="{name}"'})
        return response(404, "there is nothing here")

    async def _page(self, socket_: Any) -> None:
        """A page's life."""
        from websockets.exceptions import ConnectionClosed

        assert self._loop is not None
        if len(self._sessions) >= MAX_PAGES:  # counted again: many may have been let in at once
            await socket_.close(1013, "too many pages are open")
            return
        session = Session(self.first, self._loop)
        self._sessions.append(session)
        if self.live is not None:
            self.live.watched = True
        tasks = [asyncio.create_task(self._post(session, socket_)), asyncio.create_task(self._inform(session))]
        self._list_scenes(session)
        try:
            while True:
                began = time.monotonic()
                self._obey(session, parse_request(await socket_.recv()))
                await asyncio.sleep(max(0.0, began + SECONDS_PER_MESSAGE - time.monotonic()))
        except ValueError as error:
            await socket_.close(1008, str(error)[:100])
        except ConnectionClosed:
            pass
        finally:
            for task in tasks:
                task.cancel()
            self._sessions.remove(session)
            self._files.pop(session.ticket or "", None)
            if self.live is not None:
                self.live.watched = bool(self._sessions)

    async def _post(self, session: Session, socket_: Any) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            while True:
                await socket_.send(await session.outbox.get())
        except ConnectionClosed:
            return

    async def _inform(self, session: Session) -> None:
        """The figures, whenever there are new ones and the page has room."""
        while True:
            figures = session.scene.figures
            if figures is not None and figures is not session.figures and session.has_room():
                session.figures = figures
                session.send(pack({"kind": "figures", "files": available(), **figures}))
            for ticket, (_, _, made) in list(self._files.items()):
                if time.monotonic() - made > FILE_SECONDS:
                    del self._files[ticket]
            await asyncio.sleep(FIGURES_SECONDS)

    def _obey(self, session: Session, request: Request) -> None:
        session.received(request.received)
        if request.view is not None:
            session.view = request.view
        if request.command == "download":
            self._order(session, request.argument)
        elif request.command == "open":
            self._open(session, request.argument)
        elif request.command == "scenes":
            self._list_scenes(session)
        elif request.command is not None and self.live is not None:
            self.live.paused = request.command == "pause" and not self.live.stop_asked
            self.live.stop_asked = self.live.stop_asked or request.command == "stop"
        self._painter.wake()

    def _list_scenes(self, session: Session) -> None:
        names = [] if self.shelf is None else list(self.shelf.names())
        if self.live is not None:
            names.insert(0, self.live.scene.name)
        if session.scene.name not in names:
            names.insert(0, session.scene.name)
        session.send(
            pack(
                {
                    "kind": "scenes",
                    "names": names,
                    "current": session.scene.name,
                    "live": self.live is not None and session.scene is self.live.scene,
                    "size": session.scene.renderer.image_size,
                    "reads": session.scene.reader is not None,
                    "why_no_reader": session.scene.why_no_reader,
                    "files": available(),
                }
            )
        )

    def _in_files_thread(self, work: Callable[[], None]) -> None:
        try:
            self._files_thread.submit(work)
        except RuntimeError:  # closing
            return

    def _open(self, session: Session, name: str) -> None:
        """Look at another scene; only names that are listed can be opened."""

        def work() -> None:
            problem = None
            try:
                session.look_at(self._scene(name))
            except (ValueError, RuntimeError, OSError, MemoryError) as error:
                problem = pack({"kind": "problem", "text": " ".join(str(error).split())[:300]})
            session.making_file = False  # before the page hears of it and asks for the next thing
            if problem is None:
                self._list_scenes(session)
            else:
                session.send(problem)
            self._painter.wake()

        if not session.making_file:
            session.making_file = True
            self._in_files_thread(work)

    def _scene(self, name: str) -> Scene:
        if self.live is not None and name == self.live.scene.name:
            return self.live.scene
        if self.shelf is not None and name in self.shelf.names():
            return self.shelf.open(name)
        if name == self.first.name:
            return self.first
        raise ValueError("there is no such run")

    def _order(self, session: Session, name: str) -> None:
        """Make a file, one at a time for each page, and tell the page where to fetch it."""
        if session.making_file or name not in available():
            return
        session.making_file = True
        view, scene, began = session.view or View(), session.scene, time.thread_time
        last = [0.0]

        def pace() -> None:
            worked = began() - last[0]
            if not self.allowance.unlimited:
                time.sleep(min(1.0, TRAINING_PACE * max(worked, 0.0)))
            last[0] = began()

        def work() -> None:
            last[0] = began()
            try:
                content = make(name, Order(scene, scene.snapshot, view, pace))
                self._files.pop(session.ticket or "", None)  # one waiting file a page bounds the memory
                session.ticket = secrets.token_urlsafe(16)
                if session in self._sessions:
                    self._files[session.ticket] = (name, content, time.monotonic())
                message = {"kind": "file", "name": name, "path": f"file/{session.ticket}/{name}"}
            except (KeyError, ValueError, RuntimeError, OSError, MemoryError, ImportError) as error:
                message = {"kind": "problem", "text": f"{name} cannot be made: {' '.join(str(error).split())[:300]}"}
            session.making_file = False  # before the page hears of it and asks for the next thing
            session.send(pack(message))

        self._in_files_thread(work)
