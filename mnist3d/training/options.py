"""The length and the pace of a run: what `--trainer.*` sets.

What it is: numbers, their ranges, and the schedule that follows from them. What it is not: the loop.
"""

import math
from dataclasses import dataclass

DEFAULT_MINUTES = 10.0


@dataclass
class TrainerOptions:
    """The length and the pace of a run.

    Args:
        max_steps: End of the run and of its schedule, in steps, at least 1; a run limited by steps is the same to
            the bit on the same machine's CPU.
        max_minutes: End of the run in minutes, > 0; default 10 without max_steps, else no limit. Whichever comes
            first ends the run; the schedule follows max_steps where both are set.
        stop_after: Stop and save after this many steps of this session, at least 1, leaving the schedule as it is.
        views: Rendered and real pictures in a step, at least 2.
        volume_rate: Learning rate of the volume, > 0.
        discriminator_rate: Learning rate of the discriminator, > 0.
        decay_from: Share of the run after which both rates fall linearly, [0, 1).
        final_rate: What they have fallen to at the end, as a share, [0, 1].
        average_decay: Of the averaged volume, each step, [0, 1).
        max_tilt: Degrees by which real pictures are turned out of their plane at random, as one sees them in passing;
            what a view may then look like is wider, and a view between two digits finds one sooner. 0 to 60.
        max_shift: Pixels by which each picture is moved at random before the discriminator sees it, >= 0.
    """

    max_steps: int | None = None
    max_minutes: float | None = None
    stop_after: int | None = None
    views: int = 40
    volume_rate: float = 0.06
    discriminator_rate: float = 0.0015
    decay_from: float = 0.5
    final_rate: float = 0.1
    average_decay: float = 0.98
    max_tilt: float = 45.0
    max_shift: int = 2

    def __post_init__(self) -> None:
        positive = "numbers above 0"
        checks = {
            "max_steps": (self.max_steps is None or self.max_steps >= 1, "steps from 1"),
            "max_minutes": (self.max_minutes is None or 0.0 < self.max_minutes < math.inf, positive),
            "stop_after": (self.stop_after is None or self.stop_after >= 1, "steps from 1"),
            "views": (self.views >= 2, "numbers from 2"),
            "volume_rate": (0.0 < self.volume_rate < math.inf, positive),
            "discriminator_rate": (0.0 < self.discriminator_rate < math.inf, positive),
            "decay_from": (0.0 <= self.decay_from < 1.0, "shares from 0 to below 1"),
            "final_rate": (0.0 <= self.final_rate <= 1.0, "shares from 0 to 1"),
            "average_decay": (0.0 <= self.average_decay < 1.0, "values from 0 to below 1"),
            "max_tilt": (0.0 <= self.max_tilt <= 60.0, "degrees from 0 to 60"),
            "max_shift": (0 <= self.max_shift <= 64, "pixels from 0 to 64"),
        }
        for name, (valid, allowed) in checks.items():
            if not valid:
                raise ValueError(f"trainer.{name}={getattr(self, name)}: allowed are {allowed}")

    @property
    def seconds_limit(self) -> float:
        """Longest training time; infinite for a run limited by steps alone."""
        if self.max_minutes is not None:
            return 60.0 * self.max_minutes
        return math.inf if self.max_steps is not None else 60.0 * DEFAULT_MINUTES

    def rate_factor(self, share: float) -> float:
        """Learning rates as a share of their start: flat, then linear to `final_rate`."""
        fallen = max(0.0, share - self.decay_from) / (1.0 - self.decay_from)
        return 1.0 + (self.final_rate - 1.0) * fallen
