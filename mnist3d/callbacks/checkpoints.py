"""`volume.safetensors` and `resume.pt`, now and then and at the end."""

import dataclasses
import io
import time

import torch

from ..storage.run_directory import RESUME_FILE, VOLUME_FILE, RunDirectory
from ..training.report import StepReport
from ..training.trainer import Trainer
from ..volumes.files import volume_bytes


class Checkpoints:
    """`volume.safetensors` and `resume.pt`, now and then and at the end.

    Args:
        run: where they lie.
        every_seconds: between saves; a crash loses at most this much.
    """

    def __init__(self, run: RunDirectory, every_seconds: float = 60.0) -> None:
        self.run, self.every_seconds = run, every_seconds
        self.last = time.monotonic()

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        """Save when it is time."""
        if time.monotonic() - self.last >= self.every_seconds:
            self._save(trainer)

    def finish(self, trainer: Trainer) -> None:
        """Save what there is."""
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        extra = {"step": trainer.steps_done, "renderer": dataclasses.asdict(trainer.renderer.options)}
        self.run.write(VOLUME_FILE, volume_bytes(trainer.averaged, extra))
        buffer = io.BytesIO()
        torch.save(trainer.state_dict(), buffer)
        self.run.write(RESUME_FILE, buffer.getvalue())
        self.last = time.monotonic()
