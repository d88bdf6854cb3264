"""A bar on a terminal and in a notebook, a line now and then elsewhere."""

import math
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from tqdm import tqdm

from ..training.report import StepReport
from ..training.trainer import Trainer
from .pace import Pace

LINE_SECONDS = 15.0  # between lines where nothing can be drawn anew
# A notebook tells no width, and each redrawing is a message to its browser.
NOTEBOOK_COLUMNS, NOTEBOOK_SECONDS = 100, 0.5
BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS = ".:-=+*#@"


def class_bar(shares: list[float], encoding: str | None) -> str:
    """A character a class: as high as the class is frequent, full at three times its even share.

    Args:
        shares: of each class, summing to 1; at most 20 are shown.
        encoding: of where it will be printed; one without block characters gets ASCII.
    """
    blocks = BLOCKS
    try:
        BLOCKS.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        blocks = ASCII_BLOCKS
    even = 3.0 / max(len(shares), 1)
    return "".join(blocks[min(len(blocks) - 1, int(share / even * len(blocks)))] for share in shares[:20])


def in_notebook(stream: object) -> bool:
    """Whether what is written there appears below a notebook's cell, where a carriage return begins the line anew."""
    return type(stream).__module__ == "ipykernel.iostream"


class Progress:
    """A bar on a terminal and in a notebook, a line now and then elsewhere.

    Args:
        stream: default stderr.
        remark: more to show, such as the latest score; asked for at every step.
    """

    def __init__(self, stream: TextIO | None = None, remark: Callable[[], str] = str) -> None:
        self.stream, self.remark = stream or sys.stderr, remark
        self.bar: Any = None
        self.last_line = -math.inf
        self.pace = Pace()

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        """Show where the run is."""
        if self.bar is None:
            cell = in_notebook(self.stream)
            self.bar = tqdm(
                total=1.0,
                file=self.stream,
                disable=not (cell or self.stream.isatty()),
                dynamic_ncols=not cell,
                ncols=NOTEBOOK_COLUMNS if cell else None,
                mininterval=NOTEBOOK_SECONDS if cell else 0.1,
                bar_format="{percentage:3.0f}%|{bar}| {desc}",
            )
        self.pace.note(trainer, report)
        text = self._text(trainer, report)
        now = time.monotonic()
        if not self.bar.disable:
            self.bar.n = report.progress
            self.bar.set_description_str(text, refresh=False)
            self.bar.update(0)  # redraws now and then
        elif now - self.last_line >= LINE_SECONDS or report.progress >= 1.0:
            self.last_line = now
            print(f"{100 * report.progress:3.0f} %  {text}", file=self.stream, flush=True)

    def _text(self, trainer: Trainer, report: StepReport) -> str:
        """Step, pace, the figures that objectives want shown, the classes that are read in the views."""
        parts = [f"step {report.step}"]
        if self.pace.rate is not None:
            parts += [f"{self.pace.rate:.1f}/s"]
        if self.pace.seconds_left is not None:
            parts += [f"{clock(self.pace.seconds_left)} left"]
        for objective in trainer.each_objective():
            for name, label in objective.in_progress_line.items():
                if (value := report.number(name)) is not None:
                    parts += [f"{label} {value:.2f}" if abs(value) >= 0.1 else f"{label} {value:.3f}"]
        if shares := report.metrics.get("class_shares"):
            parts += [f"[{class_bar(shares, self.stream.encoding)}]"]
        return "  ".join([*parts, self.remark()]).rstrip()

    def finish(self, trainer: Trainer) -> None:
        """Leave the last state of the bar on the screen."""
        if self.bar is not None and not self.bar.disable:
            self.bar.refresh()
        if self.bar is not None:
            self.bar.close()


def clock(seconds: float) -> str:
    """Hours, minutes and seconds as a clock shows them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
