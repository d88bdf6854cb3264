"""Callbacks that may fail without ending the run: what is written beside the checkpoints, and a checkpoint for once.

A full disk must not cost hours of training for the sake of a contact sheet.
"""

import time
from collections.abc import Callable, Sequence

from ..errors import RunError, WriteError
from ..training.report import StepReport
from ..training.trainer import Beginner, Callback, Trainer
from .checkpoints import Checkpoints
from .pictures import Pictures
from .watchdog import Watchdog

RETRY_SECONDS = 10.0  # between tries to save after one that failed


class Sheltered:
    """Hands a run on to its callbacks. What one of them cannot write is said once, and the run goes on.

    A checkpoint that cannot be written is tried again; that the last one could not be is for the caller to report.

    Args:
        callbacks: in the order in which they are called.
        say: is handed each line for people.
    """

    def __init__(self, callbacks: Sequence[Callback], say: Callable[[str], None]) -> None:
        self.callbacks, self.say = callbacks, say
        self.failed: set[Callback] = set()
        self.try_at = 0.0
        self.unsaved: str | None = None  # why the last checkpoint could not be written

    def begin(self, trainer: Trainer) -> None:
        """Hand on."""
        for callback in self.callbacks:
            if isinstance(callback, Beginner):
                callback.begin(trainer)

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        """Hand on, and catch what cannot be written.

        Raises:
            WatchdogGaveUp: the run went wrong for good.
        """
        for callback in self.callbacks:
            if isinstance(callback, Checkpoints) and time.monotonic() < self.try_at:
                continue
            try:
                callback.after_step(trainer, report)
            except (WriteError, RunError, OSError) as error:
                if isinstance(callback, Watchdog):
                    raise
                self._note(callback, error)

    def finish(self, trainer: Trainer) -> None:
        """Let every callback finish, whatever the others raise; what an error left half-done in a step is not saved.

        Raises:
            Exception: the first that is none of writing.
        """
        other: Exception | None = None
        for callback in self.callbacks:
            if not trainer.whole and isinstance(callback, Pictures):
                continue
            try:
                if not trainer.whole and isinstance(callback, Checkpoints):
                    callback.end_saving()
                    continue
                callback.finish(trainer)
                if isinstance(callback, Checkpoints):
                    self.unsaved = None
            except (WriteError, RunError, OSError) as error:
                if isinstance(callback, Checkpoints):
                    self.unsaved = _one_line(error)
                else:
                    self._note(callback, error)
            except Exception as error:
                other = other or error
        if other is not None:
            raise other

    def _note(self, callback: Callback, error: Exception) -> None:
        if isinstance(callback, Checkpoints):
            self.try_at = time.monotonic() + RETRY_SECONDS
            goes_on = "the run goes on, and saving is tried again"
        else:
            goes_on = "the run goes on without it"
        if callback not in self.failed:
            self.failed.add(callback)
            self.say(f"{_one_line(error)}; {goes_on}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
