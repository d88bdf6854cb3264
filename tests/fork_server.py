"""Commands as processes of their own, without three seconds of imports each.

A server imports mnist3d and torch once and computes nothing; each command is a fork of it. POSIX only.
"""

import atexit
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INSTALLED = "--installed"  # of the server's program: what is installed, not this clone
if INSTALLED not in sys.argv:
    sys.path.insert(0, str(Path(__file__).parents[1]))  # this clone, whatever is installed

LATER = (  # what a run and an export import when they need it
    "torch._dynamo",
    "numba",
    "mnist3d.kernels.absorption.trilinear_numba",
    "imageio.plugins.pillow",
    "imageio_ffmpeg",
    "nrrd",
    "skimage.measure",
)
PATIENCE = 240.0  # s that a test waits for what comes at once on a free machine


def forked(
    arguments: list[str], *, folder: Path, out: int, err: int, patch: str = "", before: Callable[[], None] | None = None
) -> int:
    """Run `mnist3d ARGUMENTS` in a fork of this process, as an interpreter would; returns its process id.

    Args:
        arguments: after the program's name.
        folder: where it runs.
        out, err: file numbers that it writes to.
        patch: Python that is executed first, to inject a fault.
        before: called first too.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode, encoding="utf-8") for n, mode in enumerate("rww"))
        sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
        sys.stderr.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):  # ignored by who started the tests with nohup
            signal.signal(number, signal.SIG_DFL)
        sys.argv = ["mnist3d", *arguments]
        if before is not None:
            before()
        exec(patch, {})
        os._exit(_ended())
    except BaseException:
        os.write(2, traceback.format_exc().encode("utf-8", "backslashreplace"))
    finally:
        os._exit(99)  # the harness itself is broken
    raise AssertionError


def _ended() -> int:
    """What an interpreter makes of the end of a program."""
    from mnist3d.cli.program import mnist3d_command

    try:
        mnist3d_command()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except OSError:
        return 120
    return code if isinstance(code, int) else 0 if code is None else 1


def import_once() -> None:
    """All that a run and an export need, for all forks."""
    import torch

    torch.set_num_threads(1)
    for name in (*(f"mnist3d.cli.{each}" for each in ("train", "view", "orbit", "voxels", "mesh", "points")), *LATER):
        importlib.import_module(name)
    # What takes 20 s says how far it is: on a busy machine a line more than a test of a command's words expects.
    vars(importlib.import_module("mnist3d.runs.at_work"))["LINE_SECONDS"] = 1e9


@dataclass
class Running:
    """A command that runs, with files that take what it says."""

    server: "ForkServer"
    pid: int
    out: Path
    err: Path

    def said(self) -> str:
        """On stderr so far."""
        return self.err.read_text(encoding="utf-8", errors="replace")

    def until(self, done: Callable[[], Any]) -> None:
        """Wait for something that this process does."""
        began = time.monotonic()
        while not done():
            assert time.monotonic() - began < PATIENCE, self.said()
            assert not self.server.ask("over", pid=self.pid), f"it ended before: {self.said()}"
            time.sleep(0.005)

    def send(self, number: int) -> None:
        """A signal."""
        os.kill(self.pid, number)

    def end(self) -> int:
        """Its exit code; -N where signal N killed it. A command that goes on for ever is killed, and fails the test."""
        began = time.monotonic()
        while not self.server.ask("over", pid=self.pid):
            if time.monotonic() - began > PATIENCE:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError(f"it goes on after {PATIENCE:g} s: {self.said()[-1000:]}")
            time.sleep(0.005)
        return self.server.ask("wait", pid=self.pid)


class ForkServer:
    """Starts commands in forks of a process that has imported everything.

    Args:
        folder: where what they say is kept.
        python: whose installed mnist3d runs; default this one, and this clone.
    """

    def __init__(self, folder: Path, python: Path | None = None) -> None:
        self.folder, self.count = folder, 0
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        program = [sys.executable, __file__]
        if python is not None:
            environment.pop("PYTHONPATH", None)  # which may lead to a clone
            program = [str(python), __file__, INSTALLED]
        self.process = subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
            encoding="utf-8",
        )  # fmt: skip

    def ask(self, what: str, **values: Any) -> Any:
        """A request, and what comes of it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps({"what": what, **values}), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def start(self, *arguments: Any, patch: str = "", folder: Path | None = None, err: str | None = None) -> Running:
        """Begin `mnist3d ARGUMENTS`; stderr goes into a file, or to what `err` names, such as a terminal."""
        self.count += 1
        out, told = (self.folder / f"{self.count}.{name}" for name in ("out", "err"))
        told.touch()
        words = [str(argument) for argument in arguments]
        place = str(folder or self.folder)
        pid = self.ask("start", words=words, folder=place, out=str(out), err=err or str(told), patch=patch)
        return Running(self, pid, out, told)

    def run(self, *arguments: Any, patch: str = "", folder: Path | None = None) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a command."""
        started = self.start(*arguments, patch=patch, folder=folder)
        return started.end(), started.out.read_text(encoding="utf-8"), started.said()

    def close(self) -> None:
        """End the server."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def _serve() -> None:
    import_once()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    codes: dict[int, int] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["what"] == "start":
            out, err = (os.open(asked[name], os.O_WRONLY | os.O_CREAT, 0o600) for name in ("out", "err"))
            answer: Any = forked(asked["words"], folder=Path(asked["folder"]), out=out, err=err, patch=asked["patch"])
            os.close(out)
            os.close(err)
        elif asked["what"] == "over":
            if asked["pid"] not in codes:
                pid, status = os.waitpid(asked["pid"], os.WNOHANG)
                if pid:
                    codes[pid] = os.waitstatus_to_exitcode(status)
            answer = asked["pid"] in codes
        else:
            if asked["pid"] not in codes:
                codes[asked["pid"]] = os.waitstatus_to_exitcode(os.waitpid(asked["pid"], 0)[1])
            answer = codes[asked["pid"]]
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    _serve()
