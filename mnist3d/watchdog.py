"""Notices a run that goes wrong, says so in words, and goes back to the last good state.

What it is: `diagnose`, a pure function of the last steps' figures, and a hook that acts on its verdict: it keeps
snapshots of the trainer in memory, goes back to one and slows both players down. What it is not: no judge of
quality (that is the scorecard), and no part of a healthy run, which stays the same to the bit with or without it.

The thresholds stand between what healthy runs measured and what broken ones did; docs/watchdog.md has the table.
"""

import copy
import dataclasses
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .trainer import StepReport, Trainer, variety
from .volumes import Volume

Kind = Literal[
    "not_finite",
    "empty_volume",
    "saturated_volume",
    "dead_discriminator",
    "winning_discriminator",
    "one_class",
    "same_from_everywhere",
]

# Thresholds; see docs/watchdog.md for the ranges of healthy runs that they keep clear of.
EMPTY_BRIGHTNESS = 0.1  # of the real pictures' mean brightness
SATURATED_OPACITY = 0.99  # over PROBE_LENGTH, from which a point counts as opaque
SATURATED_SHARE = 0.9  # of the ball that is opaque
BALL_BRIGHTNESS = math.pi / 4.0  # of a white ball: the share of the picture that the unit ball covers
DEAD_SPREAD = 0.01
WINNING_LOSS = 0.02
WINNING_GAP = 1.0  # a loss near zero with scores as near each other is no win
RUNAWAY_SPREAD = 100.0
ONE_CLASS_SHARE = 0.95
MIXED_CLASSES = 0.8  # real pictures of which a larger share is one class may well be sculpted as one class
SAME_VARIETY = 0.2  # of the real pictures' variety
SAME_QUANTILE = 0.8  # share of the steps that are below it
# A volume begins as fog, which looks the same from everywhere and is read as one class. Before a run has been
# otherwise these are worth a word, but there is nothing better to go back to.
START_KINDS: tuple[Kind, ...] = ("one_class", "same_from_everywhere")

WHAT_TO_TRY = "Try smaller --trainer.volume_rate and --trainer.discriminator_rate; --watchdog.act false only warns"
SNAPSHOTS = 3
PROBES = 1024  # points at which the volume is asked how opaque it is
PROBE_LENGTH = 1.0 / 16.0  # world units: a voxel of the default grid
LOOK_EVERY = 10  # steps between full diagnoses; numbers that are not finite are looked for at every step
REAL_SAMPLE = 512  # real pictures that their variety is computed from


@dataclass
class WatchdogOptions:
    """What is done about a run that goes wrong.

    Args:
        enabled: Watch at all.
        act: Go back to the last good snapshot with smaller learning rates, and stop when that does not help;
            false only says what is wrong.
        window: Steps that something has to be wrong before it counts, and between snapshots, 10 to 1000; twice
            as many for views that are all alike. Above 95 some things are named later than after 200 steps.
        rate_scale: Factor on both learning rates each time the run goes back, in (0, 1].
        max_rewinds: Times in a row that the run goes back without getting healthy before it gives up, >= 0.
    """

    enabled: bool = True
    act: bool = True
    window: int = 90
    rate_scale: float = 0.5
    max_rewinds: int = 3

    def __post_init__(self) -> None:
        checks = {
            "window": (10 <= self.window <= 1000, "steps from 10 to 1000"),
            "rate_scale": (0.0 < self.rate_scale <= 1.0, "factors above 0, up to 1"),
            "max_rewinds": (self.max_rewinds >= 0, "counts from 0"),
        }
        for name, (valid, allowed) in checks.items():
            if not valid:
                raise ValueError(f"watchdog.{name}={getattr(self, name)}: allowed are {allowed}")


class WatchdogGaveUp(RuntimeError):
    """A run that goes wrong again and again; the message is one line, the last good state is the trainer's."""


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong.

    Args:
        kind: a word for programs.
        message: a sentence for people, with the figures that show it.
    """

    kind: Kind
    message: str


@dataclass(frozen=True)
class RealFigures:
    """What the same figures are on the real pictures.

    Args:
        brightness: mean, [0, 1].
        variety: see `mnist3d.trainer.variety`.
        largest_class: share of the most frequent class; 1 without labels.
    """

    brightness: float
    variety: float
    largest_class: float

    @classmethod
    def of(cls, trainer: Trainer) -> "RealFigures":
        """Of the pictures that a trainer draws from."""
        images, labels = trainer.images, trainer.labels
        chosen = torch.linspace(0, len(images) - 1, min(REAL_SAMPLE, len(images))).long().to(images.device)
        largest = 1.0 if labels is None else torch.bincount(labels).max().item() / len(labels)
        return cls(images.mean().item(), variety(images[chosen]).item(), largest)


def diagnose(
    history: Sequence[StepReport], reals: RealFigures, *, window: int, opaque_share: float = 0.0
) -> Diagnosis | None:
    """What the last steps say is wrong, the worst first; None if nothing is.

    A figure that is no number counts at once. All else counts when it holds for most of `window` steps, views that
    are all alike for most of twice as many: single steps and the beginning of a run do not count.

    Args:
        history: reports of consecutive steps, oldest first; the last `2 * window` are read.
        reals: the figures on the real pictures.
        window: steps.
        opaque_share: see the function of that name.
    """
    if not history:
        return None
    if (name := _first_not_finite(history[-1])) is not None:
        return not_finite(name)
    if len(history) < window:
        return None
    whole = list(history)[-2 * window :]
    recent = whole[-window:]

    def middle(name: str) -> float:
        """Median of a figure; NaN, which is beyond no threshold, where it was not measured."""
        values = [value for report in recent if (value := getattr(report, name)) is not None]
        return median(values) if values else math.nan

    brightness = middle("mean_brightness")
    if brightness < EMPTY_BRIGHTNESS * reals.brightness:
        return Diagnosis(
            "empty_volume",
            f"the volume is empty, its views are black (mean brightness {brightness:.2g}, real {reals.brightness:.2g})",
        )
    if brightness > max(0.5 * (reals.brightness + BALL_BRIGHTNESS), reals.brightness):
        return Diagnosis(
            "saturated_volume",
            f"the volume is saturated, its views are white (mean brightness {brightness:.2g}, "
            f"real {reals.brightness:.2g})",
        )
    if opaque_share > SATURATED_SHARE:
        return Diagnosis(
            "saturated_volume", f"the volume is saturated, opaque nearly everywhere ({opaque_share:.0%} of it)"
        )
    if found := _diagnose_discriminator(middle("score_gap"), middle("score_spread"), middle("discriminator_loss")):
        return found
    return _diagnose_views(whole, reals) if len(whole) >= 2 * window else None


def _diagnose_discriminator(gap: float, spread: float, loss: float) -> Diagnosis | None:
    if spread < DEAD_SPREAD:
        return Diagnosis(
            "dead_discriminator", f"the discriminator is dead, its scores are all alike (they differ by {spread:.2g})"
        )
    if spread > RUNAWAY_SPREAD:
        return Diagnosis(
            "winning_discriminator", f"the discriminator's scores have run away (they differ by {spread:.2g})"
        )
    if gap > WINNING_GAP and abs(loss) < WINNING_LOSS:
        return Diagnosis(
            "winning_discriminator",
            f"the discriminator has won, the volume learns nothing from it (its loss is {loss:.2g}, the scores "
            f"differ by {gap:.2g})",
        )
    return None


def _diagnose_views(reports: Sequence[StepReport], reals: RealFigures) -> Diagnosis | None:
    varieties = sorted(report.view_variety for report in reports if report.view_variety is not None)
    if varieties and (alike := varieties[round(SAME_QUANTILE * (len(varieties) - 1))]) < SAME_VARIETY * reals.variety:
        return Diagnosis(
            "same_from_everywhere",
            f"the volume looks the same from everywhere, as a hollow shell does (variety of the views {alike:.2g}, "
            f"real {reals.variety:.2g})",
        )
    largest = [max(report.class_shares) for report in reports if report.class_shares]
    if largest and reals.largest_class <= MIXED_CLASSES and (share := fmean(largest)) > ONE_CLASS_SHARE:
        return Diagnosis("one_class", f"every view is read as the same class ({share:.0%} of them)")
    return None


def not_finite(name: str) -> Diagnosis:
    """The diagnosis of a figure that is no number."""
    return Diagnosis("not_finite", f"{name}: not a finite number any more")


def _first_not_finite(report: StepReport) -> str | None:
    for field in dataclasses.fields(report):
        value = getattr(report, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            return field.name.replace("_", " ")
    return None


@torch.no_grad()
def opaque_share(volume: Volume, points: Float[Tensor, "P 3"]) -> float:
    """Share of the points whose surroundings let less than a hundredth of the light through.

        mean [1 - exp(-attenuation * length) > 0.99],   length = PROBE_LENGTH

    Args:
        volume: is asked for its attenuation.
        points: world points inside the unit ball.
    """
    attenuation, _ = volume(points)
    return (-torch.expm1(-attenuation * PROBE_LENGTH) > SATURATED_OPACITY).float().mean().item()


def ball_points(count: int) -> Float[Tensor, "P 3"]:
    """Points spread evenly through the unit ball, the same ones in every run."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    return directions * torch.rand(count, 1, generator=generator) ** (1.0 / 3.0)


@torch.no_grad()
def finite(tensors: Iterator[Tensor]) -> bool:
    """Whether all numbers are finite; one synchronisation with the device, however many tensors."""
    sums = [tensor.sum(dtype=torch.float32) for tensor in tensors if tensor.is_floating_point()]
    return not sums or bool(torch.stack(sums).isfinite().all())


class Watchdog:
    """A hook that watches a run and, unless told not to, mends it.

    It must come before the hooks that write, so that what they save has been looked at.

    Args:
        options: what is done.
        say: is handed each line for people; default: none.
        record: is handed a record of each event, plain values under `step`, `watchdog` (the kind), `message`,
            `action` and `rate_scale`; default: none.

    Raises:
        WatchdogGaveUp: from `after_step`, after `max_rewinds` in a row did not help. The trainer is then back at
            the last good snapshot, and hooks that save at the end of the run save that.
    """

    def __init__(
        self,
        options: WatchdogOptions | None = None,
        say: Callable[[str], None] | None = None,
        record: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.options = options or WatchdogOptions()
        self.say, self.record = say or _ignore, record or _ignore
        self.history: deque[StepReport] = deque(maxlen=2 * self.options.window)
        # Three, a window apart: when something is diagnosed after two windows, the oldest is from before it began.
        self.snapshots: deque[dict[str, Any]] = deque(maxlen=SNAPSHOTS)
        self.rewinds_in_a_row = 0
        self.rewound_at = 0
        self.varied_at = math.inf  # step at which the start was over
        self.said: dict[Kind, int] = {}  # when each was last seen, where nothing is done about it
        self.reals: RealFigures | None = None
        self.points = ball_points(PROBES)

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        """Look at the step; snapshot, or speak and act."""
        if self.reals is None:
            self.reals, self.points = RealFigures.of(trainer), self.points.to(trainer.device)
        self.history.append(report)
        fully = report.step % LOOK_EVERY == 0
        diagnosis = self._look(trainer, report, fully)
        if diagnosis is None:
            if fully and len(self.history) == self.history.maxlen:
                self.varied_at = min(self.varied_at, report.step)
            if fully or not self.snapshots:
                self._snapshot(trainer)
        elif not self.options.act:
            self._say_once(trainer, report, diagnosis, "went on, as told by --watchdog.act false")
        elif diagnosis.kind in START_KINDS and self.varied_at > report.step:
            self._say_once(trainer, report, diagnosis, "it never was otherwise, so went on")
        else:
            self._mend(trainer, report, diagnosis)

    def finish(self, trainer: Trainer) -> None:
        """Nothing is left to do."""

    def _look(self, trainer: Trainer, report: StepReport, fully: bool) -> Diagnosis | None:
        assert self.reals is not None
        for name, module in (("volume", trainer.volume), ("discriminator", trainer.discriminator)):
            weights = list(module.parameters())
            if not finite(iter(weights)):
                return not_finite(f"weights of the {name}")
            if not finite(weight.grad for weight in weights if weight.grad is not None):
                return not_finite(f"gradient of the {name}")
        if not fully:
            return diagnose([report], self.reals, window=self.options.window)
        opaque = opaque_share(trainer.volume, self.points)
        return diagnose(self.history, self.reals, window=self.options.window, opaque_share=opaque)

    def _snapshot(self, trainer: Trainer) -> None:
        """Every window a copy of the trainer, which counts as good once it has two younger ones."""
        latest = max(self.snapshots[-1]["steps_done"], self.rewound_at) if self.snapshots else -math.inf
        if not self.options.act or trainer.steps_done - latest < self.options.window:
            return
        self.snapshots.append(copy.deepcopy(trainer.state_dict()))
        if self.snapshots[0]["steps_done"] > self.rewound_at:
            self.rewinds_in_a_row = 0  # a state from after the last rewind counts as good by now

    def _say_once(self, trainer: Trainer, report: StepReport, diagnosis: Diagnosis, action: str) -> None:
        """Speak, unless the same was wrong lately."""
        if report.step - self.said.get(diagnosis.kind, -math.inf) > 2 * self.options.window:
            self._tell(trainer, report, diagnosis, action)
        self.said[diagnosis.kind] = report.step

    def _mend(self, trainer: Trainer, report: StepReport, diagnosis: Diagnosis) -> None:
        if not self.snapshots:
            action = f"there is no good state to go back to; gave up. {WHAT_TO_TRY}"
            raise WatchdogGaveUp(self._tell(trainer, report, diagnosis, action, aloud=False))
        good = self.snapshots[0]
        give_up = self.rewinds_in_a_row >= self.options.max_rewinds
        trainer.rewind(good, 1.0 if give_up else self.options.rate_scale)
        self.snapshots.clear()
        self.snapshots.append(good)
        where = f"back at step {good['steps_done']}"
        if give_up:
            action = f"{where}; gave up after {self.rewinds_in_a_row} rewinds in a row. {WHAT_TO_TRY}"
            raise WatchdogGaveUp(self._tell(trainer, report, diagnosis, action, aloud=False))
        self.rewinds_in_a_row += 1
        self.rewound_at = trainer.steps_done
        self.history.clear()
        if self.varied_at > good["steps_done"]:
            self.varied_at = math.inf
        rates = f"learning rates x {self.options.rate_scale:g}, now {trainer.rate_scale:.3g} of the schedule's"
        self._tell(trainer, report, diagnosis, f"{where}, {rates}")

    def _tell(self, trainer: Trainer, report: StepReport, diagnosis: Diagnosis, action: str, aloud: bool = True) -> str:
        line = f"watchdog: step {report.step}: {diagnosis.message}; {action}"
        self.record(
            {
                "step": report.step,
                "watchdog": diagnosis.kind,
                "message": diagnosis.message,
                "action": action,
                "rate_scale": trainer.rate_scale,
                "seconds": round(trainer.seconds, 2),
            }
        )
        if aloud:
            self.say(line)
        return line


def _ignore(_: Any) -> None:
    pass
