"""Many command lines in little time, each watched: how it ends, what it says, what it leaves, what it costs.

A parent imports mnist3d and torch once and computes nothing; each case is a fork of it, which runs one command line as
a process of its own would. `run_alone` starts a real process instead: the scripts do that with a sample of their
cases, to show that a fork does not lie.

A verdict does not depend on how busy the machine is: time is the processor's, and a process hangs when it has used none
of it for ten seconds.
"""

import contextlib
import importlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

sys.path.insert(0, str(Path(__file__).parents[1]))

from fork_server import forked

# Before torch is imported, which happens in this process only where no thread is started by it.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).parents[2]
SECONDS = 10.0  # of the processor that a command may take, and that it may sleep: the bound on a hang
GIVEN_UP = 4096.0  # MiB at which a case is ended for the machine's sake
BUSY = ("Ctrl-C ends", "starting at step", "going on at step")  # who prints this has begun to work
OVER = "The sculpture lies in"  # a run's last line, after which Ctrl-C only shortens Python's own end


@dataclass
class Case:
    """A command line and what is special about it.

    Args:
        number: counts from 0; with the seed it makes the case.
        kind: row of the table.
        program: "mnist3d", or a program of the clone such as tools/export_mesh.py.
        arguments: what follows.
        folder: where it runs; all that is below it must be the same after a refusal.
        what: what was done to a file, for whoever repeats it.
        long: whether a command line of this kind can rightly ask for work that takes longer than a case may; then it is
            ended by Ctrl-C.
        small: whether success must stay below the bound on memory too: nothing large was asked for.
        undisturbed: a run or a page that has begun is not stopped by Ctrl-C.
    """

    number: int
    kind: str
    program: str
    arguments: list[str]
    folder: Path
    what: str = ""
    long: bool = False
    small: bool = False
    undisturbed: bool = False

    def line(self) -> str:
        """To type, in its folder."""
        words = [word if len(word) < 200 else f"{word[:60]}...({len(word)} characters)" for word in self.arguments]
        return shlex.join([self.program, *words]).encode("utf-8", "backslashreplace").decode()


@dataclass
class Outcome:
    """How a case ended.

    Args:
        code: exit code; -N for signal N.
        stdout, stderr: what it said.
        seconds: of the processor.
        peak: largest resident memory, MiB, torch included.
        ended: why the harness ended it, or "".
        changed: files that a refusal left or changed.
    """

    code: int
    stdout: str
    stderr: str
    seconds: float
    peak: float
    ended: str = ""
    changed: list[str] = field(default_factory=list)


def run_forked(case: Case) -> Outcome:
    """One case in a fork of this process."""
    sys.stdout.flush()
    sys.stderr.flush()
    return _watched(case, lambda out, err: _forked(case, out, err), kernels=True)


def run_alone(case: Case) -> Outcome:
    """One case in a new interpreter."""

    started: list[subprocess.Popen[bytes]] = []

    def start(out: int, err: int) -> int:
        words = ["-m", "mnist3d"] if case.program == "mnist3d" else [_program(case)]
        started.append(
            subprocess.Popen(
                [sys.executable, *words, *case.arguments],
                cwd=case.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        )
        return started[0].pid

    outcome = _watched(case, start, kernels=False)
    started[0].returncode = outcome.code  # it has been waited for
    return outcome


def _program(case: Case) -> str:
    return str(ROOT / case.program)


def _forked(case: Case, out: int, err: int) -> int:
    from mnist3d.invocation import PROGRAMS

    if case.program == "mnist3d":
        script, words = str(ROOT / "mnist3d" / "__main__.py"), case.arguments
    else:
        command = next(name for name, program in PROGRAMS.items() if program == case.program)
        script, words = _program(case), [command, *case.arguments]

    def called() -> None:
        """By this name: messages begin with it."""
        sys.argv[0] = script
        sys.orig_argv = [sys.executable, script, *case.arguments]

    return forked(words, folder=case.folder, out=out, err=err, before=called)


def _watched(case: Case, start: Callable[[int, int], int], *, kernels: bool) -> Outcome:
    """Start a process, end it where it must be ended, measure it.

    Args:
        case: what it does.
        start: takes the files for its output and returns its process id.
        kernels: whether the kernel's own figure of its memory counts. In a new interpreter it includes what the parent
            had; there what is seen every .01 s counts.
    """
    before = _listing(case.folder)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = start(out.fileno(), err.fileno())
        ended, asked, last, moved, most = "", 0.0, 0.0, time.monotonic(), 0.0
        while True:
            done, status, usage = os.wait4(pid, os.WNOHANG)
            if done:
                break
            used, resident, asleep = _running(pid)
            most = max(most, resident)
            if used > last or not asleep:
                last, moved = used, time.monotonic()
            if not asked and not case.undisturbed and any(mark in _text(out) + _text(err) for mark in BUSY):
                asked = used + 2.0  # of work, so that it has come to where Ctrl-C stops it
            waits = time.monotonic() - moved
            # who was asked to stop may still save; what is prepared may compile kernels
            allowed = SECONDS * (12 if case.undisturbed else 3 if ended else 1)
            if asked and (used > asked or waits > 1.0) and not ended:
                os.killpg(pid, signal.SIGINT)
                ended, last, moved = "stopped", used, time.monotonic()
            elif not ended and used > SECONDS and case.long:
                os.killpg(pid, signal.SIGINT)
                ended = "stopped"
            elif (limit := _beyond(used - (asked or 0.0), resident, waits, allowed)) and ended != limit:
                os.killpg(pid, signal.SIGKILL)
                ended = limit
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):  # whoever it started and did not wait for
            os.killpg(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGINT and ended == "stopped" and OVER in _text(out) + _text(err):
            code = 0
        changed = _changes(before, _listing(case.folder)) if code == 2 else []
        seconds, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024 if kernels else most
        return Outcome(code, _text(out), _text(err), seconds, peak, ended, changed)


def _beyond(used: float, resident: float, waits: float, allowed: float) -> str:
    """Why a process must be ended, or ""."""
    if resident > GIVEN_UP:
        return f"killed at {resident:.0f} MiB"
    if waits > SECONDS:
        return f"killed: it slept for {SECONDS:.0f} s"
    if used > allowed:
        return f"killed after {used:.0f} s of computing"
    return ""


def _running(pid: int) -> tuple[float, float, bool]:
    """Seconds of the processor, resident MiB, and whether it sleeps: no thread computes or waits for the disk."""
    try:
        fields = _stat(f"/proc/{pid}/stat")
        used = sum(map(float, fields[11:15])) / os.sysconf("SC_CLK_TCK")  # with the children that it has waited for
        resident = int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        threads = os.listdir(f"/proc/{pid}/task")
        return used, resident, not any(_stat(f"/proc/{pid}/task/{each}/stat")[0] in "RD" for each in threads)
    except (OSError, IndexError):
        return 0.0, 0.0, False  # it ends just now


def _stat(path: str) -> list[str]:
    """The fields behind the name, which can hold anything; the first is the state."""
    return Path(path).read_text().rpartition(")")[2].split()


def _text(file: IO[bytes]) -> str:
    return os.pread(file.fileno(), 2**20, 0).decode("utf-8", "replace")


def _listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder, with its size and time; links are not followed."""
    found = {}
    for place, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            status = os.lstat(os.path.join(place, name))
            key = os.path.relpath(os.path.join(place, name), folder)
            found[key] = (0, 0) if name in folders else (status.st_size, status.st_mtime_ns)
    return found


def _changes(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> list[str]:
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def import_once() -> None:
    """All commands and torch, for all forks."""
    from mnist3d.cli.program import COMMANDS

    for name in COMMANDS:
        importlib.import_module(f"mnist3d.cli.{name}")
    if len(os.listdir("/proc/self/task")) != 1:
        raise SystemExit("a thread runs already: a fork would not be what a new process is")


@contextlib.contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder. No TemporaryDirectory, which each fork would remove at its end."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    private_home(folder)
    import_once()
    try:
        yield folder
    finally:
        removed(folder)


def private_home(folder: Path) -> None:
    """Caches and settings of a user of their own, so that nothing of this machine's is read or changed."""
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        (folder / "home").mkdir(exist_ok=True, parents=True)
        os.environ[name] = str(folder / "home")


def prepared(folder: Path, program: str, *arguments: str | Path) -> None:
    """Run a command that must succeed: what the cases start from."""
    case = Case(0, "preparation", program, [str(word) for word in arguments], folder, undisturbed=True)
    outcome = run_forked(case)
    if outcome.code != 0:
        raise SystemExit(f"cannot prepare: {case.line()}: {outcome.code}\n{outcome.stderr}")


def in_fork(work: Callable[[], object]) -> None:
    """Do what computes with torch, which this process must not: a fork of a process with threads may hang."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
        raise SystemExit("cannot prepare")


def removed(folder: Path) -> None:
    """A folder with whatever names are in it."""
    subprocess.run(["rm", "-rf", "--", folder], check=False)  # shutil.rmtree stumbles over some of these names
