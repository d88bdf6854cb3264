"""How fast a run goes and how long it still takes: one estimate for the terminal and the page."""

from ..training.report import StepReport
from ..training.trainer import Trainer

RATED_STEPS = 5  # before these, a rate and an estimate would be a guess


class Pace:
    """Steps a second and seconds left, by the training clock, which no pause moves.

    It counts from the first step it is told of, as that one compiles and warms up, and anew from each growth, as finer
    steps take longer and what is left consists of them.
    """

    def __init__(self) -> None:
        self._first: tuple[int, float, float] | None = None  # step, seconds, progress
        self.rate: float | None = None
        """Steps a second; None while that would be a guess."""
        self.seconds_left: float | None = None
        """Of training; None while that would be a guess."""

    def note(self, trainer: Trainer, report: StepReport) -> None:
        """One more step is done."""
        now = report.step, trainer.seconds, report.progress
        if self._first is None or trainer.grown_at >= self._first[0]:
            self._first = now
        steps, passed, done = (late - early for late, early in zip(now, self._first, strict=True))
        limit = max(trainer.options.seconds_limit - trainer.seconds, 0.0)
        if report.progress >= 1.0:
            self.seconds_left = 0.0
        elif steps >= RATED_STEPS and passed > 0.0 and done > 0.0:
            self.seconds_left = min(passed * (1.0 - report.progress) / done, limit)
        else:
            self.seconds_left = None
        self.rate = steps / passed if steps > 0 and passed > 0.0 and self.seconds_left is not None else None
