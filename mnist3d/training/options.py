"""The length, the saves and the learning rates of a run: what `--trainer.*` sets, and the schedule of the rates."""

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import shown

PrecisionName = Literal["float32", "bfloat16"]
DEFAULT_MINUTES = 10.0
# The relativistic pairing is a moving game: no momentum, and a long memory of the second moment (R3GAN).
ADAM_BETAS = (0.0, 0.99)
DECAY_FROM = 0.5  # progress from which the rates fall linearly
FINAL_RATE = 0.1  # what they have fallen to at the end, as a share
SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Interval:
    """How long between two saves: of time or of steps.

    Args:
        seconds: of real time; None where steps count.
        steps: saved after every step that is a multiple; None where time counts.
    """

    seconds: float | None
    steps: int | None

    @classmethod
    def of(cls, text: str) -> "Interval":
        """From "60s", "5m", "1h" or "500steps".

        Raises:
            ValueError: anything else, or nothing at all between two saves; it says what it must be.
        """
        found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?) ?([smh]|min)|(\d{1,9}) ?steps?", text.strip(), re.ASCII)
        if found is None or float(found[1] or found[3]) <= 0.0:
            raise ValueError("must be a number > 0 with its unit, such as 60s, 5m, 1h or 500steps")
        if found[1] is None:
            return cls(None, int(found[3]))
        return cls(float(found[1]) * SECONDS[found[2]], None)

    def is_over(self, seconds: float, step: int) -> bool:
        """Whether it is time.

        Args:
            seconds: since the last save.
            step: steps done.
        """
        return seconds >= self.seconds if self.seconds is not None else step % (self.steps or 1) == 0


@dataclass
class TrainerOptions:
    """The length, the saves and the learning rates of a run.

    Args:
        max_steps: Number of steps after which the run and its learning-rate schedule end, >= 1. A run limited by steps
            gives the same result to the bit on the same machine's CPU.
        max_minutes: Minutes after which the run ends, > 0; default 10 without max_steps, else no limit. With both, the
            first limit reached ends the run, and the learning-rate schedule follows max_steps.
        stop_after: Stop and save after this many steps of this session, >= 1, to resume later. The learning-rate
            schedule does not change.
        save_every: Time or steps between two saves of the run, with the unit: 60s, 5m, 1h, 500steps. A crash loses at
            most this much.
        views: Number of views in a step, and of real images, >= 2.
        views_at_once: Number of views whose intermediate results are in memory at the same time, >= 1; default all of
            a step. They are computed again for the gradient: less memory, longer steps, the same but for rounding.
        precision: Numbers that the convolutions of the discriminator compute with, float32 or bfloat16. The second
            take half of the memory, and less time on a GPU that has them; losses, penalties and weights stay float32.
        volume_rate: Learning rate of the volume, > 0. In the second half of the run it falls linearly to a tenth.
        max_tilt: Largest random tilt of the real images out of their plane, in degrees, 0 to 60. Then a view may look
            like a digit that is seen from the side.
    """

    max_steps: int | None = None
    max_minutes: float | None = None
    stop_after: int | None = None
    save_every: str = "60s"
    views: int = 40
    views_at_once: int | None = None
    precision: PrecisionName = "float32"
    volume_rate: float = 0.06
    max_tilt: float = 45.0

    def __post_init__(self) -> None:
        positive = "finite and > 0"
        checks = {
            "max_steps": (self.max_steps is None or self.max_steps >= 1, ">= 1"),
            "max_minutes": (self.max_minutes is None or 0.0 < self.max_minutes < math.inf, positive),
            "stop_after": (self.stop_after is None or self.stop_after >= 1, ">= 1"),
            "views": (self.views >= 2, ">= 2"),
            "views_at_once": (self.views_at_once is None or self.views_at_once >= 1, ">= 1"),
            "precision": (self.precision in get_args(PrecisionName), f"one of {', '.join(get_args(PrecisionName))}"),
            "volume_rate": (0.0 < self.volume_rate < math.inf, positive),
            "max_tilt": (0.0 <= self.max_tilt <= 60.0, "in [0, 60] (degrees)"),
        }
        for name, (valid, wanted) in checks.items():
            if not valid:
                raise ValueError(f"trainer.{name}={getattr(self, name)}: must be {wanted}")
        try:
            Interval.of(self.save_every)
        except ValueError as error:
            raise ValueError(f"trainer.save_every={shown(self.save_every)}: {error}") from None

    @property
    def seconds_limit(self) -> float:
        """Longest training time; infinite for a run limited by steps alone."""
        if self.max_minutes is not None:
            return 60.0 * self.max_minutes
        return math.inf if self.max_steps is not None else 60.0 * DEFAULT_MINUTES


def rate_factor(progress: float) -> float:
    """Learning rates as a share of their start: flat to `DECAY_FROM`, then linear to `FINAL_RATE`.

    Args:
        progress: share of the run that is done, [0, 1].
    """
    fallen = max(0.0, progress - DECAY_FROM) / (1.0 - DECAY_FROM)
    return 1.0 + (FINAL_RATE - 1.0) * fallen
