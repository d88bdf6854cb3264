"""`volume.safetensors` and `resume.pt`, now and then and at the end: the last two of each, never with a NaN."""

import dataclasses
import math
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from torch import Tensor

from ..errors import ConfigError, NotSaved, RunError, WriteError
from ..storage.run_directory import RESUME_FILE, VOLUME_FILE, RunDirectory
from ..training.finite import Infinities, each_value
from ..training.options import Interval
from ..training.report import StepReport
from ..training.trainer import Trainer
from ..volumes.files import volume_writer
from .saving import LARGE, Saving, write_state

PLAIN = (bool, int, float, str, bytes, type(None))  # what torch.load makes of a file without running code


class Checkpoints:
    """`volume.safetensors` and `resume.pt`, now and then and at the end.

    Both are of one step. The two of the save before are kept as `volume.previous.safetensors` and
    `resume.previous.pt`. A state with a number that is not finite is not written; the files of the last good one stay.

    Args:
        run: where they lie.
        every: between saves: "60s" or "500steps"; a crash loses at most this much.
        say: is handed the line about a state that is not saved; default: none.
        whole: whether the files of an earlier session, if there are any, can be read; others are not kept.

    Raises:
        NotSaved: from `finish`, where the last state is not finite.
    """

    def __init__(
        self,
        run: RunDirectory,
        every: str = "60s",
        say: Callable[[str], None] | None = None,
        *,
        whole: bool = True,
    ) -> None:
        self.run, self.every, self.say, self.whole = run, Interval.of(every), say, whole
        self.last = time.monotonic()
        self.saved: int | None = None  # step of the files
        self.said = self.refused = False
        self.at_first: Infinities | None = None
        self._saving: Saving | None = None

    def begin(self, trainer: Trainer) -> None:
        """Note what the run begins with.

        Raises:
            ConfigError: an objective remembers something that a checkpoint cannot hold, or nobody could load again.
        """
        for name, value in each_value(trainer.state_dict()):
            if not isinstance(value, Tensor) and type(value) not in PLAIN:
                self.refused = True
                kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
                raise ConfigError(f"{name}: is a {kind}; what is saved must be tensors, plain numbers and text")
        self.at_first = self.at_first or Infinities(trainer.state_dict())
        if self.saved is None and trainer.steps_done and self.run.resume_path.is_file():
            self.saved = trainer.steps_done

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        """Save when it is time; the disk is waited for beside the next steps if the state is large."""
        self.end_saving(wait=False)
        if self.every.is_over(time.monotonic() - self.last, report.step):
            wrong = self._save(trainer)
            if wrong is not None and not self.said and self.say is not None:
                self.say(wrong)
                self.said = True

    def finish(self, trainer: Trainer) -> None:
        """Save what there is."""
        if self.refused:
            return
        if (wrong := self._save(trainer)) is not None:
            raise NotSaved(wrong)
        self.end_saving()

    def _save(self, trainer: Trainer) -> str | None:
        """Write both files, or return the line about what is wrong."""
        self.last = time.monotonic()
        with suppress(WriteError, RunError, OSError):  # this one follows it in any case
            self.end_saving()
        state = trainer.state_dict()
        if (wrong := (self.at_first or Infinities({})).wrong_in(state)) is not None:
            stays = "nothing was saved before" if self.saved is None else f"the checkpoint of step {self.saved} stays"
            return f"step {trainer.steps_done}: {wrong}; not saved, {stays}"
        complete = trainer.progress >= 1.0 or trainer.seconds >= trainer.options.seconds_limit
        extra = {
            "step": trainer.steps_done,
            "complete": complete,
            "renderer": dataclasses.asdict(trainer.renderer.options),
        }
        if trainer.options.seconds_limit < math.inf:  # a run of so many steps is the same file each time
            extra["seconds"] = state["seconds_done"]
        contents = {VOLUME_FILE: volume_writer(trainer.averaged, extra), RESUME_FILE: partial(write_state, state)}
        # A second save at one step replaces the first: two of the same would be no two.
        keep = self.whole and trainer.steps_done != self.saved
        size = sum(value.nbytes for _, value in each_value(state) if isinstance(value, Tensor))
        write = partial(self.run.write_newest, contents, keep)
        self._saving = Saving(write, trainer.steps_done, beside=size >= LARGE)
        self.end_saving(wait=size < LARGE)
        self.last = time.monotonic()
        return None

    def end_saving(self, wait: bool = True) -> None:
        """Note that a save is on the disk.

        Args:
            wait: for one that is not yet; else it is left to itself.

        Raises:
            WriteError, RunError: it could not be written.
        """
        saving = self._saving
        if saving is None or not saving.is_over(wait):
            return
        self._saving = None
        if saving.error is not None:
            raise saving.error
        self.saved, self.whole = saving.step, True
