"""What a stage of `gpu.py` is told and what it finds, on disk from the moment that it is found."""

import json
import math
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mnist3d.errors import one_line
from mnist3d.storage.atomic import write_atomically

ROOT = Path(__file__).parents[1]


class Done(NamedTuple):
    """A command that has ended."""

    code: int | None
    """None where it was stopped, as its time was over."""
    output: str
    """stdout and stderr."""
    seconds: float


Command = Callable[..., Done]
"""As `run_command`."""


def run_command(words: Sequence[str], seconds: float, **environment: str) -> Done:
    """Run a program of this interpreter from the root of the repository, with no input; what it says is printed too.

    Args:
        words: after `python`, or the path of another program and its words.
        seconds: after which it is stopped.
        environment: added to that of this process.
    """
    command = [*words] if os.path.isabs(words[0]) else [sys.executable, *words]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    given = {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", **environment}
    print("$", " ".join(words), flush=True)
    began = time.monotonic()
    try:
        ended = subprocess.run(
            command,
            cwd=ROOT,
            env=given,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=max(seconds, 0.0),
        )
        code, said = ended.returncode, ended.stdout
    except subprocess.TimeoutExpired as late:
        code, said = None, late.stdout or b""
    output = said.decode("utf-8", "replace")
    print(output, flush=True)
    return Done(code, output, time.monotonic() - began)


@dataclass
class Setup:
    """How a stage is to run.

    Args:
        device: cuda or cpu.
        small: tiny sizes, whose figures say nothing.
        folder: an empty one, for its files.
        ends: when its time is over, by `time.monotonic`.
        command: runs a program.
    """

    device: str
    small: bool
    folder: Path
    ends: float = math.inf
    command: Command = run_command

    @property
    def on_gpu(self) -> bool:
        """Whether there is one to ask."""
        return self.device == "cuda"

    def left(self) -> float:
        """Seconds until its time is over."""
        return self.ends - time.monotonic()

    def mnist3d(self, *words: str) -> Done:
        """The product's command."""
        return self.command(["-m", "mnist3d", *words], self.left())


@dataclass
class Report:
    """What a stage finds.

    Args:
        path: file that holds all of it after each finding; None for none.
    """

    path: Path | None = None
    checks: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    needs_a_gpu: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def check(self, what: str, right: bool, said: str = "") -> None:
        """Something that is right or wrong."""
        self.checks.append({"what": what, "right": bool(right), "said": said})
        self._found(f"{'right' if right else 'WRONG'}: {what}{': ' if said else ''}{said}")

    def figure(self, name: str, value: Any) -> None:
        """Something measured."""
        self.figures[name] = value
        self._found(f"{name}: {value}")

    def remark(self, text: str) -> None:
        """Something to know, neither right nor wrong."""
        self.remarks.append(text)
        self._found(text)

    def skip_on_cpu(self, what: str) -> None:
        """Something that only a GPU could answer, and there is none."""
        self.needs_a_gpu.append(what)
        self._found(f"needs a GPU: {what}")

    @contextmanager
    def part(self, what: str) -> Iterator[None]:
        """Whatever goes wrong inside is a finding, and the rest of the stage goes on."""
        try:
            yield
        except Exception as error:  # of a driver, a compiler, a package, or of ours: all is worth knowing
            traceback.print_exc(file=sys.stdout)
            self.check(what, False, one_line(f"{type(error).__name__}: {error}"))

    def found(self) -> dict[str, Any]:
        """All of it."""
        return {
            "checks": self.checks,
            "figures": self.figures,
            "needs_a_gpu": self.needs_a_gpu,
            "remarks": self.remarks,
        }

    def _found(self, line: str) -> None:
        print(line, flush=True)
        if self.path is not None:
            write_json(self.path, self.found())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all. What is not finite, which JSON does not know, becomes a word."""
    write_atomically(path, (json.dumps(_plain(content), indent=1) + "\n").encode())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
