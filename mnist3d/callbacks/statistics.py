"""Every few steps one line of `stats.jsonl`."""

import math
from typing import Any

from ..storage.memory import peak_memory
from ..storage.run_directory import RunDirectory
from ..training.report import StepReport
from ..training.trainer import Trainer


class Statistics:
    """Every few steps one line of `stats.jsonl`.

    Args:
        run: where it lies.
        every: steps between lines.
    """

    def __init__(self, run: RunDirectory, every: int = 20) -> None:
        self.run, self.every = run, every

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        """Write the report, rounded to what a plot can show."""
        if report.step % self.every and report.progress < 1.0:
            return
        record = {"step": report.step, "progress": report.progress, **report.metrics}
        rounded = {key: _rounded(value) for key, value in record.items()}
        of_the_process = {"seconds": round(trainer.seconds, 2), "peak_memory": peak_memory()}
        self.run.append_stats({**rounded, **of_the_process})

    def finish(self, trainer: Trainer) -> None:
        """Nothing is left to do: every line is already on disk."""


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None  # JSON knows no NaN
    return value
