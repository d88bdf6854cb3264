"""Classifiers that are trained beside a run, in a process of their own.

A process, as a thread would draw from the run's random generator and wait for its interpreter. The images go to it
through a pipe, and the weights come back through one: the process writes no file, and when the pipe closes, whatever
ended the run, it ends too.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors.torch import load, save
from torch import Tensor

from .classifiers import Classifiers, classifiers_of, prepare, store
from .learning import STEPS

LENGTH = 8  # bytes of a whole number, the least first: how long what follows is
SHARE, WEIGHTS = b"share", b"weights"  # what a line of an answer begins with
MOST_WORDS = 200  # letters of what a process that failed said last
PACKAGE_ROOT = Path(__file__).parents[2]
# One thread, no GPU; threads that wait sleep.
SURROUNDINGS = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "CUDA_VISIBLE_DEVICES": "",
}
# Linux gives a process of this niceness 36/1024, 3.4 %, of what it gives one that competes for the same core, and all
# of what is idle (kernel/sched/core.c, sched_prio_to_weight).
NICENESS = 15
# On Windows: below all else, deaf to Ctrl-C, no window.
FLAGS = sum(
    getattr(subprocess, name, 0) for name in ("IDLE_PRIORITY_CLASS", "CREATE_NEW_PROCESS_GROUP", "CREATE_NO_WINDOW")
)
# A run obeys these and ends its process itself; Ctrl-C reaches the whole group.
FOR_THE_RUN = {getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)}


class BackgroundTraining:
    """Trains classifiers beside something else. All but `result` may be called and read by any thread.

    Args:
        images: images that the sculpture never sees, in [0, 1]; two or more.
        labels: their classes.
        class_names: one a class.
        cache_folder: where the weights are put; default the user's cache folder.
        steps: of training, each classifier.

    Raises:
        ValueError: as `load_classifiers`.
    """

    def __init__(
        self,
        images: Float[Tensor, "N 1 H W"],
        labels: Int[Tensor, " N"] | None,
        class_names: list[str],
        cache_folder: str | Path | None = None,
        steps: int = STEPS,
    ) -> None:
        self._prepared, self._steps = prepare(images, labels, class_names, cache_folder, steps), steps
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._first: tuple[float, float] | None = None  # when the first share came, and which
        self._content: bytes | None = None
        self.share = 0.0
        """Of the training that is done, [0, 1]."""
        self.seconds_left: float | None = None
        """None while that would be a guess."""
        self.failure: str | None = None
        """Why there will be no classifiers, in one line."""

    @property
    def running(self) -> bool:
        """Whether it has begun and has neither failed nor ended."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    def start(self) -> None:
        """Begin, or begin again after a failure; returns at once."""
        with self._lock:
            if self._closed or self.running or self._content is not None:
                return
            self.share, self.seconds_left, self.failure, self._first = 0.0, None, None, None
            self._thread = threading.Thread(target=self._run, name="mnist3d-classifiers", daemon=True)
            self._thread.start()

    def result(self) -> Classifiers | None:
        """The classifiers once they are trained. Only for the thread that draws from torch's random generator.

        To build the networks draws from it, and puts it back.
        """
        content = self._content
        return None if content is None else classifiers_of(load(content), self._prepared)

    def close(self) -> None:
        """End the process, if there is one, and wait until it has ended."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()  # it has nothing to put in order
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        """What the thread does: start the process, hand it the images, note what it says, end it."""
        if hasattr(signal, "pthread_sigmask"):  # of this thread alone, and inherited by the process
            signal.pthread_sigmask(signal.SIG_BLOCK, FOR_THE_RUN)
        said = ""
        try:
            with self._lock:
                if self._closed:
                    return
                self._process = process = _started()
            try:
                if hasattr(os, "setpriority"):
                    os.setpriority(os.PRIO_PROCESS, process.pid, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
                with suppress(BrokenPipeError):  # it ended early; what it said last tells why
                    self._hand_over(process)
                said = self._listen(process)
            finally:
                process.kill()
                code = process.wait()
                _close(process)
                with self._lock:
                    self._process = None
            if self._content is None and not self._closed:
                self.failure = said or f"its process ended with code {code}"
        except (OSError, ValueError, MemoryError) as error:
            self.failure = " ".join(str(error).split())[:MOST_WORDS] or type(error).__name__

    def _hand_over(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin is not None
        prepared = self._prepared
        content = save(
            {
                "images": prepared.images,
                "classes": prepared.classes,
                "numbers": torch.tensor([prepared.outputs, self._steps]),
            }
        )
        process.stdin.write(len(content).to_bytes(LENGTH, "little"))
        process.stdin.write(content)
        process.stdin.flush()  # it stays open: when it closes, the process ends

    def _listen(self, process: "subprocess.Popen[bytes]") -> str:
        """Note shares and weights as they come; the last other line, which is of an error."""
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            word, _, number = line.strip().partition(b" ")
            if word == SHARE:
                self._note(float(number))
            elif word == WEIGHTS:
                content = process.stdout.read(int(number))
                if len(content) < int(number):
                    break  # ended half-way
                store(content, self._prepared.path)
                self.share, self.seconds_left, self._content = 1.0, 0.0, content
                return ""
            elif line.strip():
                said = " ".join(line.decode("utf-8", "replace").split())[:MOST_WORDS]
        return said

    def _note(self, share: float) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now, share
        since, before = self._first
        if share > before:
            self.seconds_left = (now - since) * (1.0 - share) / (share - before)
        self.share = share


def _started() -> "subprocess.Popen[bytes]":
    """The process; it works in the folder of this package, so it imports this one, and nothing that lies about."""
    if not sys.executable:
        raise OSError("Python does not know its own program")
    return subprocess.Popen(
        [sys.executable, "-m", f"{__package__}._child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=PACKAGE_ROOT,
        env={**os.environ, **SURROUNDINGS},
        creationflags=FLAGS,
    )


def _close(process: "subprocess.Popen[bytes]") -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):  # what was still to be handed over
                stream.close()
