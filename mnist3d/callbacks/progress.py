"""A bar on a terminal, a line now and then elsewhere."""

import math
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from tqdm import tqdm

from ..training.trainer import StepReport, Trainer

LINE_SECONDS = 15.0  # between lines where stderr is no terminal
BLOCKS = "▁▂▃▄▅▆▇█"
RATED_STEPS = 5  # before these, a rate and an estimate would be a guess
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


class Progress:
    """A bar on a terminal, a line now and then elsewhere.

    Args:
        stream: default stderr.
        remark: more to show, such as the latest score; asked for at every step.
    """

    def __init__(self, stream: TextIO | None = None, remark: Callable[[], str] = str) -> None:
        self.stream, self.remark = stream or sys.stderr, remark
        self.bar: Any = None
        self.last_line = -math.inf
        self.first: StepReport | None = None
        self.began = time.monotonic()

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        """Show where the run is."""
        if self.bar is None:
            # The first step compiles and warms up: it is in no rate and in no estimate.
            self.first, self.began = report, time.monotonic()
            self.bar = tqdm(
                total=1.0,
                file=self.stream,
                disable=not self.stream.isatty(),
                dynamic_ncols=True,
                bar_format="{percentage:3.0f}%|{bar}| {desc}",
            )
        assert self.first is not None
        now = time.monotonic()
        if trainer.grown_at >= self.first.step:  # finer steps take longer, and what is left consists of them
            self.first, self.began = report, now
        parts = [f"step {report.step}"]
        if report.step - self.first.step >= RATED_STEPS or report.share >= 1.0:
            passed = max(now - self.began, 1e-9)
            left = passed * (1.0 - report.share) / max(report.share - self.first.share, 1e-9)
            left = min(left, max(trainer.options.seconds_limit - trainer.seconds, 0.0))
            rate = (report.step - self.first.step) / passed
            parts += [f"{rate:.1f}/s"] * (report.step > self.first.step) + [f"{_clock(left)} left"]
        if trainer.losses.adversarial_weight > 0:
            parts += [f"D {report.discriminator_loss:.2f}", f"V {report.volume_loss:.2f}"]
        if trainer.targets is not None:
            parts += [f"T {report.target_loss:.3f}"]
        if report.class_shares:
            parts += [f"[{class_bar(report.class_shares, self.stream.encoding)}]"]
        text = "  ".join([*parts, self.remark()]).rstrip()
        if not self.bar.disable:
            self.bar.n = report.share
            self.bar.set_description_str(text, refresh=False)
            self.bar.update(0)  # redraws at most ten times a second
        elif now - self.last_line >= LINE_SECONDS or report.share >= 1.0:
            self.last_line = now
            print(f"{100 * report.share:3.0f} %  {text}", file=self.stream, flush=True)

    def finish(self, trainer: Trainer) -> None:
        """Leave the last state of the bar on the screen."""
        if self.bar is not None and not self.bar.disable:
            self.bar.refresh()
        if self.bar is not None:
            self.bar.close()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
