"""Watches a run that may go wrong, says so in words, and goes back to the last good state.

A callback that acts on what `diagnosis` says: it keeps snapshots of the trainer in memory, goes back to one and slows
both players down. A healthy run stays the same to the bit with or without it.
"""

import copy
import math
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

from torch import nn

from ..errors import WatchdogGaveUp, WriteError
from ..training.finite import Infinities, finite
from ..training.report import StepReport
from ..training.trainer import Trainer
from .diagnosis import Diagnosis, Kind, RealFigures, ball_points, not_finite, opaque_share
from .diagnosis import diagnose as diagnose

# A volume begins as fog, which looks the same from everywhere and is read as one class. Before a run has been
# otherwise these are worth a word, but there is nothing better to go back to.
START_KINDS: tuple[Kind, ...] = ("one_class", "same_from_everywhere")
WHAT_TO_TRY = "Try smaller --trainer.volume_rate and --discriminator.rate; --watchdog warn only warns"
Action = Literal["off", "warn", "rewind"]
WINDOW = 90  # steps that something has to be wrong before it counts; docs/watchdog.md says why
RATE_SCALE = 0.5  # factor on the learning rates each time a run goes back
MAX_REWINDS = 3  # in a row, without getting healthy, before it gives up
SNAPSHOTS = 3
PROBES = 1024  # points at which the volume is asked how opaque it is
LOOK_EVERY = 10  # steps between full diagnoses; numbers that are not finite are looked for at every step


class Watchdog:
    """A callback that watches a run and, unless told only to warn, mends it.

    It must come before the callbacks that write, so that what they save has been looked at.

    Args:
        action: "warn" only says what is wrong; "rewind" goes back to the last good snapshot with smaller learning
            rates, and gives up when that does not help.
        say: is handed each line for people; default: none.
        record: is handed a record of each event, plain values under `step`, `watchdog` (the kind), `message`,
            `action` and `rate_scale`; default: none.
        window: steps that something has to be wrong before it counts, and between snapshots, 10 to 1000; twice as many
            for views that are all alike.
        rate_scale: factor on all learning rates each time the run goes back, in (0, 1].
        max_rewinds: in a row, without getting healthy, before it gives up, >= 0.

    Raises:
        WatchdogGaveUp: from `after_step`, after `max_rewinds` in a row did not help. The trainer is then back at
            the last good snapshot, and callbacks that save at the end of the run save that.
    """

    def __init__(
        self,
        action: Literal["warn", "rewind"] = "rewind",
        say: Callable[[str], None] | None = None,
        record: Callable[[dict[str, Any]], None] | None = None,
        *,
        window: int = WINDOW,
        rate_scale: float = RATE_SCALE,
        max_rewinds: int = MAX_REWINDS,
    ) -> None:
        self.acts, self.window, self.rate_scale, self.max_rewinds = action == "rewind", window, rate_scale, max_rewinds
        self.say, self.record = say or _ignore, record or _ignore
        self.history: deque[StepReport] = deque(maxlen=2 * window)
        # Three, a window apart: when something is diagnosed after two windows, the oldest is from before it began.
        self.snapshots: deque[dict[str, Any]] = deque(maxlen=SNAPSHOTS)
        self.rewinds_in_a_row = 0
        self.rewound_at = 0
        self.varied_at = math.inf  # step at which the start was over
        self.said: dict[Kind, int] = {}  # when each was last seen, where nothing is done about it
        self.reals: RealFigures | None = None
        self.at_first: Infinities | None = None
        self.points = ball_points(PROBES)

    def begin(self, trainer: Trainer) -> None:
        """Note what the run begins with, and copy it: what goes wrong in the first steps can go back to that."""
        if self.at_first is None:
            self._note(trainer)
            self._snapshot(trainer)

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        """Look at the step; snapshot, or speak and act."""
        if self.at_first is None:
            self._note(trainer)
        self.history.append(report)
        fully = report.step % LOOK_EVERY == 0
        diagnosis = self._look(trainer, report, fully)
        if diagnosis is None:
            if fully and len(self.history) == self.history.maxlen:
                self.varied_at = min(self.varied_at, report.step)
            if fully or not self.snapshots:
                self._snapshot(trainer)
        elif not self.acts:
            self._say_once(trainer, report, diagnosis, "went on, as told by --watchdog warn")
        elif diagnosis.kind in START_KINDS and self.varied_at > report.step:
            self._say_once(trainer, report, diagnosis, "it never was otherwise, so went on")
        else:
            self._mend(trainer, report, diagnosis)

    def finish(self, trainer: Trainer) -> None:
        """Nothing is left to do."""

    def _note(self, trainer: Trainer) -> None:
        self.reals, self.points = RealFigures.of(trainer), self.points.to(trainer.device)
        self.at_first = Infinities(trainer.state_dict())

    def _look(self, trainer: Trainer, report: StepReport, fully: bool) -> Diagnosis | None:
        assert self.reals is not None
        assert self.at_first is not None
        for name, part, module in [] if _learns(trainer) else _watched(trainer):
            weights = {f"{part}.{key}": weight for key, weight in module.named_parameters()}
            if not finite(weights.values()) and any(self.at_first.wrong_with(*each) for each in weights.items()):
                return not_finite(f"weights of {name}")
            if not finite(weight.grad for weight in weights.values() if weight.grad is not None):
                return not_finite(f"gradient of {name}")
        if not fully:
            return diagnose([report], self.reals, window=self.window)
        if wrong := self.at_first.wrong_in(trainer.state_dict()):  # averages, optimisers: what a file would hold
            return not_finite(wrong)
        opaque = opaque_share(trainer.volume, self.points)
        return diagnose(self.history, self.reals, window=self.window, opaque_share=opaque)

    def _snapshot(self, trainer: Trainer) -> None:
        """Every window a copy of the trainer, which counts as good once it has two younger ones."""
        latest = max(self.snapshots[-1]["steps_done"], self.rewound_at) if self.snapshots else -math.inf
        if not self.acts or trainer.steps_done - latest < self.window:
            return
        state = trainer.state_dict()
        if self.at_first is not None and self.at_first.wrong_in(state):
            return
        self.snapshots.append(copy.deepcopy(state))
        if self.snapshots[0]["steps_done"] > self.rewound_at:
            self.rewinds_in_a_row = 0  # a state from after the last rewind counts as good by now

    def _say_once(self, trainer: Trainer, report: StepReport, diagnosis: Diagnosis, action: str) -> None:
        """Speak, unless the same was wrong lately."""
        if report.step - self.said.get(diagnosis.kind, -math.inf) > 2 * self.window:
            self._tell(trainer, report, diagnosis, action)
        self.said[diagnosis.kind] = report.step

    def _mend(self, trainer: Trainer, report: StepReport, diagnosis: Diagnosis) -> None:
        if not self.snapshots:
            action = f"there is no good state to go back to; gave up. {WHAT_TO_TRY}"
            raise WatchdogGaveUp(self._tell(trainer, report, diagnosis, action, aloud=False))
        good = self.snapshots[0]
        give_up = self.rewinds_in_a_row >= self.max_rewinds
        trainer.rewind(good, 1.0 if give_up else self.rate_scale)
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
        rates = f"learning rates x {self.rate_scale:g}, now {trainer.rate_scale:.3g} of the schedule's"
        self._tell(trainer, report, diagnosis, f"{where}, {rates}")

    def _tell(self, trainer: Trainer, report: StepReport, diagnosis: Diagnosis, action: str, aloud: bool = True) -> str:
        line = f"watchdog: step {report.step}: {diagnosis.message}; {action}"
        record = {
            "step": report.step,
            "watchdog": diagnosis.kind,
            "message": diagnosis.message,
            "action": action,
            "rate_scale": trainer.rate_scale,
            "seconds": round(trainer.seconds, 2),
        }
        try:
            self.record(record)
        except WriteError as error:  # a full disk must not keep a hopeless run going
            self.say(" ".join(str(error).split()))
        if aloud:
            self.say(line)
        return line


def _learns(trainer: Trainer) -> bool:
    """Whether all that learns and all its gradients are finite: one look, as each one waits for the device."""
    weights = [weight for _, _, module in _watched(trainer) for weight in module.parameters()]
    return finite([*weights, *(weight.grad for weight in weights if weight.grad is not None)])


def _watched(trainer: Trainer) -> list[tuple[str, str, nn.Module]]:
    """What learns, by the name that a message gives it and by that of its part of the trainer's state."""
    names = [objective.name for objective in trainer.each_objective()]
    objectives = [(f"the objective {name}", f"objectives.{name}", trainer.objectives[name]) for name in names]
    return [("the volume", "volume", trainer.volume), *objectives]


def _ignore(_: Any) -> None:
    pass
