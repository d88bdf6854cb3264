"""The page's other end: one address, one web socket a page, one thread that draws.

What starts, what listens, what ends. Nothing that a client sends can raise beyond its own connection.
"""

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from ..errors import ViewerError
from .access import REFUSED, REFUSED_PAGE, Access
from .bundle import page_bytes
from .client import Session
from .cpu_budget import Allowance, run_clock
from .downloads import MEDIA_TYPES, available
from .jobs import Workshop
from .live import Live
from .messages import ACTIONS, Request, pack, parse_request
from .network import Gate, listen, may_connect, response
from .options import ViewerOptions
from .render_thread import Painter
from .scene import Scene, Shelf

MAX_PAGES = 16
MAX_MESSAGE = 4096  # bytes that a page may send at once
SECONDS_PER_MESSAGE = 0.008  # of all pages together: whoever talks faster waits
FIGURES_SECONDS = 0.5
NAMES_SECONDS = 1.0  # that a list of the runs is good for
MAX_NAMES = 500  # newest runs in the menu
STALLED_SECONDS = 120.0  # that a page may take for one message: 10 KB a second for the largest
FETCH_SECONDS = 1800.0  # that a file may take over a slow line


class Viewer:
    """Serves the page until it is closed.

    Args:
        options: where.
        live: the run in training, or None.
        shelf: finished runs, or None.
        first: what a page looks at first; default the live run.
        say: where a line about a failure goes; default stderr.

    Raises:
        ViewerError: neither a live run nor a first scene, or a token in the environment that is none.
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
        self.access = Access(self.options.read_only)
        self._say = say or (lambda line: print(line, file=sys.stderr, flush=True))
        self.allowance = Allowance(self.options.share, run_clock())
        self.allowance.unlimited = live is None
        self._sessions: list[Session] = []
        self._names: tuple[float, list[str]] = (-NAMES_SECONDS, [])
        self._next_message = 0.0
        self._gate = Gate()
        self._workshop = Workshop(self.allowance, self._sessions.__contains__)
        self._painter = Painter(lambda: list(self._sessions), self.allowance, live, self._say)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name="mnist3d-viewer", daemon=True)
        self._html = page_bytes()
        self.port = 0

    @property
    def url(self) -> str:
        """What to open: with the token."""
        return self.access.url

    def start(self) -> str:
        """Listen; returns `url`.

        Raises:
            ViewerError: no port is free, the address is not this machine's, or a package is missing.
        """
        try:
            import websockets.asyncio.server  # noqa: F401 - that it is there, before a thread needs it
        except ImportError as error:
            raise ViewerError(f"it needs the package websockets ({error}): pip install websockets") from None
        self._socket = listen(self.options.host, self.options.port)
        own = self._socket.getsockname()
        self.port = own[1]
        self.access.listens_on(self.options.host, own[0], self.port)
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

    def all_told(self) -> bool:
        """Whether each page was sent the newest figures of what it looks at."""
        pages = list(self._sessions)
        return all(page.figures is page.scene.figures and not page.waiting_bytes for page in pages)

    def all_shown(self) -> bool:
        """Whether each page that takes something in shows the newest volume: in its view, its reading and its map."""
        if self.live is not None and self.live.has_newer:
            return not self._sessions
        return all(self._painter.is_done(page) or not page.has_room() for page in list(self._sessions))

    def close(self) -> None:
        """Stop drawing and listening; pages that are open say so."""
        self._painter.close()
        self._workshop.close()
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
            if self.live is not None:  # nobody could press "Resume" any more
                self.live.paused = self.live.watched = False

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
            open_timeout=FETCH_SECONDS,  # covers plain answers, files too; the gate drops who does not ask
            create_connection=self._gate.connections(),
            backlog=16,  # accepted at once, before the gate can count them
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
        hosts, origins = request.headers.get_all("Host"), request.headers.get_all("Origin")
        if len(hosts) > 1 or len(origins) > 1:  # what a proxy and this program might read differently
            return response(400, "this request has two Host or Origin headers")
        host, origin = next(iter(hosts), ""), next(iter(origins), None)
        refused = may_connect(host, origin, self.options.host)
        if refused:
            return response(403, refused)
        where, _, query = request.path.partition("?")
        path = PurePosixPath(where).parts
        if path == ("/",):
            if self.access.admits_once(query):
                return response(303, "", more={"Location": f"?token={self.access.token}"})
            # Nothing from elsewhere is ever loaded, and the socket goes back where the page came from.
            policy = f"default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob: data:; \
connect-src 'self' ws://{host} wss://{host}; base-uri 'none'; form-action 'none'"
            status, html = (200, self._html) if self.access.may_open(query) else (403, REFUSED_PAGE)
            return response(status, html, "text/html; charset=utf-8", {"Content-Security-Policy": policy})
        if path == ("/", "socket"):
            return None if self.access.may_look(query, origin) else response(403, REFUSED)
        # A ticket is as hard to guess as the token, is told to a page with the token alone, and ends with that page.
        # The token itself would stay in the browser's list of downloads.
        if len(path) == 4 and path[1] == "file" and path[2] in self._workshop.files:
            name, content, _ = self._workshop.files[path[2]]
            if not self._gate.may_carry(connection, len(content)):
                return response(503, "too many files are on their way; try again later")
            media = MEDIA_TYPES.get(PurePosixPath(name).suffix, "application/octet-stream")
            return response(200, content, media, {"Content-Disposition": f'attachment; filename="{name}"'})
        return response(404, "there is nothing here")

    async def _page(self, socket_: Any) -> None:
        """Serve one page from its first message to its last."""
        from websockets.exceptions import ConnectionClosed

        assert self._loop is not None
        if len(self._sessions) >= MAX_PAGES:  # not refused as HTTP: a script could not learn the reason
            await socket_.close(1013, "too many pages are open")
            return
        session = Session(self.first, self._loop, self.access.may_act(socket_.request.path.partition("?")[2]))
        self._sessions.append(session)
        if self.live is not None:
            self.live.watched = True
        tasks = [asyncio.create_task(_post(session, socket_)), asyncio.create_task(self._inform(session))]
        try:
            session.send(pack(self._scenes(session)))
            while True:
                began = time.monotonic()
                self._obey(session, parse_request(await socket_.recv()))
                self._next_message = max(self._next_message, began) + SECONDS_PER_MESSAGE
                await asyncio.sleep(max(0.0, self._next_message - time.monotonic()))
        except ValueError as error:
            await socket_.close(1008, str(error).encode("ascii", "backslashreplace").decode()[:100])  # 123 bytes fit
        except ConnectionClosed:
            pass
        finally:
            for task in tasks:
                task.cancel()
            self._sessions.remove(session)
            self._workshop.forget(session)
            if self.live is not None:
                self.live.watched = bool(self._sessions)

    async def _inform(self, session: Session) -> None:
        """The figures, whenever there are new ones and the page has room."""
        while True:
            figures = session.scene.figures
            last = figures is not None and figures.get("state") == "finished"  # also to a page behind another window
            if figures is not None and figures is not session.figures and (last or session.has_room()):
                session.figures = figures
                try:
                    session.send(pack({"kind": "figures", **figures}))
                except (TypeError, ValueError):  # what a damaged run noted is no JSON
                    session.send(pack({"kind": "problem", "text": "the figures of this run cannot be shown"}))
            if session.scene.reader is not session.reader:  # classifiers that have been trained meanwhile
                session.send(pack(self._scenes(session)))
            self._workshop.drop_old()
            await asyncio.sleep(FIGURES_SECONDS)

    def _obey(self, session: Session, request: Request) -> None:
        session.received(request.received)
        if request.view is not None:
            session.view = request.view
        if request.command in ACTIONS and not session.may_act:
            session.send(pack({"kind": "problem", "text": self.access.why_not(self.live is not None)}))
        elif request.command == "download":
            self._workshop.order(session, request.argument)
        elif request.command == "open":
            self._open(session, request.argument)
        elif request.command == "scenes":
            session.send(pack(self._scenes(session)))
        elif request.command == "train":
            if self.live is not None and self.live.reader_training is not None:
                self.live.reader_training.start()
        elif request.command is not None and self.live is not None:
            self.live.paused = request.command == "pause" and not self.live.stop_asked
            self.live.stop_asked = self.live.stop_asked or request.command == "stop"
        self._painter.wake()

    def _scenes(self, session: Session) -> dict[str, Any]:
        """What can be looked at, and what this page looks at."""
        if self.shelf is not None and time.monotonic() - self._names[0] >= NAMES_SECONDS:
            try:
                self._names = time.monotonic(), list(self.shelf.names())[:MAX_NAMES]
            except OSError:  # a folder that cannot be read
                self._names = time.monotonic(), []
        names = list(self._names[1])
        if self.live is not None:
            names = [self.live.scene.name, *(name for name in names if name != self.live.scene.name)]
        if session.scene.name not in names:
            names.insert(0, session.scene.name)
        session.reader = session.scene.reader
        return {
            "kind": "scenes",
            "names": names,
            "current": session.scene.name,
            "live": self.live is not None and session.scene is self.live.scene,
            "size": session.scene.renderer.image_size,
            "reads": session.scene.reader is not None,
            "why_no_reader": session.scene.why_no_reader,
            "notice": session.scene.notice,
            "trains": self.live is not None,
            "acts": session.may_act,
            "why_not": "" if session.may_act else self.access.why_not(self.live is not None),
            "files": available() if session.may_act else [],
        }

    def _open(self, session: Session, name: str) -> None:
        """Look at another scene; only names that are listed can be opened."""

        def work() -> dict[str, Any]:
            session.look_at(self._scene(name))
            self._painter.wake()
            return self._scenes(session)

        self._workshop.run(session, work)

    def _scene(self, name: str) -> Scene:
        if self.live is not None and name == self.live.scene.name:
            return self.live.scene
        if self.shelf is not None and name in self.shelf.names():
            return self.shelf.open(name)
        if name == self.first.name:
            return self.first
        raise ValueError("there is no such run")


async def _post(session: Session, socket_: Any) -> None:
    """Send what waits for a page. One that takes nothing in is dropped: its line is full, and no ping could ask it."""
    from websockets.exceptions import ConnectionClosed

    try:
        await session.post(lambda message: asyncio.wait_for(socket_.send(message), STALLED_SECONDS))
    except asyncio.TimeoutError:
        socket_.transport.abort()
    except ConnectionClosed:
        return
