"""A session of one run as a process of its own, and what came of it. Needs no torch: a node of a cluster imports it.

The process ends in order, its run saved, when its stdin closes: so it does when whoever started it is killed, here or
on a node far away.
"""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from filelock import Timeout

from ..errors import UserError, one_line
from ..storage.plain_files import open_plain
from ..storage.run_directory import RunDirectory

GRACE = 60.0  # s that a run has to finish its step and save
BEAT = 0.2  # s between two looks at a process
LOCKED = 90.0  # s that a process of a killed sweep is given to save its run: more than its grace
TAIL = 4096  # bytes of what a run said last
# With which torchrun and its like tell a process its place in a run: a sweep that is started so is in none of its runs.
OF_A_LAUNCHER = re.compile(r"((LOCAL|GROUP|ROLE)_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|TORCHELASTIC_.*")
PACKAGE_ROOT = Path(__file__).parents[2]
# On Windows: deaf to Ctrl-C, no window.
FLAGS = sum(getattr(subprocess, name, 0) for name in ("CREATE_NEW_PROCESS_GROUP", "CREATE_NO_WINDOW"))


@dataclass(frozen=True)
class Job:
    """A session of a run.

    Args:
        name: of the run.
        module: what Python runs; it trains, and ends when its stdin closes.
        words: of the command line of `train`.
        folder: in which it works, an absolute path, as all others.
        log: file to which all it says is added.
        variables: of the environment, in place of those of whoever starts it.
    """

    name: str
    module: str
    words: tuple[str, ...]
    folder: str
    log: str
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a session ended.

    Args:
        name: of the run.
        code: exit code, -N after signal N; None where there was no process, or nobody knows.
        error: the last line that it said, "" where that is no error.
        seconds: that it took.
        lost: whether the machine is to blame, and not the run.
    """

    name: str
    code: int | None
    error: str = ""
    seconds: float = 0.0
    lost: bool = False


@runtime_checkable
class Executor(Protocol):
    """Where sessions run. All methods return at once but `close`."""

    @property
    def places(self) -> int:
        """How many sessions can run at the same time now, 1 or more."""
        ...

    def submit(self, job: Job) -> None:
        """Begin a session; no more than there are places."""
        ...

    def poll(self) -> list[Outcome]:
        """The sessions that have ended since the last call."""
        ...

    def cancel(self, name: str) -> None:
        """Ask a session to save and end; its outcome still comes."""
        ...

    def close(self) -> None:
        """Ask all to save and end, and wait for it, `GRACE` at most."""
        ...


def variables_of(cores: int) -> dict[str, str]:
    """Of the environment of a run with so many cores."""
    return {"OMP_NUM_THREADS": f"{cores}", "MKL_NUM_THREADS": f"{cores}"}


def run_job(job: Job, stop: threading.Event | None = None) -> Outcome:
    """Run a session to its end; whatever ends this function ends the process too.

    Args:
        job: what to do.
        stop: once it is set, the run is saved and ends.
    """
    began = time.monotonic()
    try:
        if not Path(job.log).parent.is_dir():
            where = "the folder of the sweep must lie on a disk that all nodes share"
            return Outcome(job.name, None, f"{os.uname().nodename if hasattr(os, 'uname') else 'here'}: {where}")
        with open(job.log, "ab") as log:
            before = log.tell()
            code = _run(job, log, stop)
        said = "" if code == 0 else _last_line(Path(job.log), before)
        return Outcome(job.name, code, said, time.monotonic() - began)
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return Outcome(job.name, None, one_line(reason), time.monotonic() - began)


def _run(job: Job, log: BinaryIO, stop: threading.Event | None) -> int:
    path = [os.environ.get("PYTHONPATH", ""), str(PACKAGE_ROOT)]  # the same package there, whatever is installed
    kept = {name: value for name, value in os.environ.items() if not OF_A_LAUNCHER.fullmatch(name)}
    process = subprocess.Popen(
        [sys.executable, "-m", job.module, *job.words],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=job.folder,
        env={**kept, "PYTHONPATH": os.pathsep.join(filter(None, path)), **job.variables},
        start_new_session=True,  # Ctrl-C is for the sweep, which ends its runs itself
        creationflags=FLAGS,
    )
    try:
        while (code := _waited(process, BEAT)) is None:
            if stop is not None and stop.is_set():
                break
    finally:  # also where a cluster interrupts this function
        assert process.stdin is not None
        process.stdin.close()
        if _waited(process, GRACE) is None:
            process.kill()
    return process.wait() if code is None else code


def _waited(process: "subprocess.Popen[bytes]", seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def is_free(run: Path) -> bool:
    """Whether no process writes into a run directory; one that is not there is free."""
    if not run.is_dir():
        return True
    directory = RunDirectory(run)
    try:
        directory.take()
    except UserError as error:
        return not isinstance(error.__context__, Timeout)  # what else is wrong there is said by the run itself
    directory.release()
    return True


def _last_line(path: Path, begin: int) -> str:
    """What was said last in a file from a place on; without the name of the program."""
    with open_plain(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(begin, size - TAIL))
        lines = file.read(TAIL).decode("utf-8", "replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return one_line(last.rpartition("mnist3d train: ")[2].removeprefix("error: "))
