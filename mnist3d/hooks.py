"""What watches a run: progress at the terminal, figures, pictures and files.

What it is: one small class for each, called by the trainer after every step. What it is not: none of them
changes the run; with or without them the same seed gives the same volume.
"""

import dataclasses
import io
import math
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from .export.pictures import SHEET_VIEWS, contact_sheet, sheet_views
from .poses import turntable
from .renderer import render_views
from .run_directory import RESUME_FILE, VOLUME_FILE, RunDirectory
from .trainer import StepReport, Trainer
from .volumes import volume_bytes

LINE_SECONDS = 15.0  # between lines where stderr is no terminal
BLOCKS = "▁▂▃▄▅▆▇█"
TARGET_COLUMNS = 12
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


class Stats:
    """Every few steps one line of `stats.jsonl`.

    Args:
        run: where it lies.
        every: steps between lines.
    """

    def __init__(self, run: RunDirectory, every: int = 20) -> None:
        self.run, self.every = run, every

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        """Write the report, rounded to what a plot can show."""
        if report.step % self.every and report.share < 1.0:
            return
        record = {key: _rounded(value) for key, value in dataclasses.asdict(report).items()}
        self.run.append_stats({**record, "seconds": round(trainer.seconds, 2)})

    def finish(self, trainer: Trainer) -> None:
        """Nothing is left to do: every line is already on disk."""


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None  # JSON knows no NaN
    return value


class Pictures:
    """`reals.png` at the start, a contact sheet every few steps, a turntable at the end.

    Args:
        run: where they lie.
        every: steps between contact sheets.
    """

    def __init__(self, run: RunDirectory, every: int = 500) -> None:
        self.run, self.every = run, every
        self.began = False

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        """Draw when it is time."""
        if not self.began:
            self.began = True
            chosen = torch.linspace(0, len(trainer.images) - 1, SHEET_VIEWS).long()
            self.run.write_picture("reals.png", contact_sheet(trainer.images[chosen].cpu(), columns=8))
        if report.step % self.every == 0:
            self._sheet(trainer, f"views_{report.step:06d}.png")

    def finish(self, trainer: Trainer) -> None:
        """The last sheet and the turntable."""
        self._sheet(trainer, "views.png")
        strip = render_views(trainer.averaged, trainer.renderer, turntable(24))
        self.run.write_picture("turntable.png", contact_sheet(strip, columns=12))
        if trainer.targets is not None:
            wanted = trainer.targets.pictures.cpu()
            shown = render_views(trainer.averaged, trainer.renderer, trainer.targets.rotations)
            self.run.write_picture("targets.png", contact_sheet(_in_turn(wanted, shown), columns=TARGET_COLUMNS))

    def _sheet(self, trainer: Trainer, name: str) -> None:
        self.run.write_picture(name, contact_sheet(sheet_views(trainer.averaged, trainer.renderer, trainer.poses), 8))


def _in_turn(wanted: Float[Tensor, "K 1 H W"], shown: Float[Tensor, "K 1 H W"]) -> Float[Tensor, "B 1 H W"]:
    """A row of what was asked for, below it what is shown, then the next row; short rows filled with black."""
    pairs = zip(wanted.split(TARGET_COLUMNS), shown.split(TARGET_COLUMNS), strict=True)
    return torch.cat([F.pad(part, (0,) * 7 + (TARGET_COLUMNS - len(part),)) for pair in pairs for part in pair])


class Saver:
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
