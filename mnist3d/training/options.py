"""The length and the pace of a run: what `--trainer.*` sets, and the schedule of the learning rates."""

import math
from dataclasses import dataclass

DEFAULT_MINUTES = 10.0
# The relativistic pairing is a moving game: no momentum, and a long memory of the second moment (R3GAN).
ADAM_BETAS = (0.0, 0.99)
DECAY_FROM = 0.5  # progress from which the rates fall linearly
FINAL_RATE = 0.1  # what they have fallen to at the end, as a share


@dataclass
class TrainerOptions:
    """The length and the pace of a run.

    Args:
        max_steps: End of the run and of its schedule, in steps, at least 1; a run limited by steps is the same to
            the bit on the same machine's CPU.
        max_minutes: End of the run in minutes, > 0; default 10 without max_steps, else no limit. Whichever comes
            first ends the run; the schedule follows max_steps where both are set.
        stop_after: Stop and save after this many steps of this session, at least 1, leaving the schedule as it is.
        views: Rendered and real images in a step, at least 2.
        volume_rate: Learning rate of the volume, > 0; it falls to a tenth over the second half of the run.
        max_tilt: Largest angle, in degrees, by which real images are tilted out of their plane at random, so that a
            view may look like a digit seen from the side; 0 to 60.
    """

    max_steps: int | None = None
    max_minutes: float | None = None
    stop_after: int | None = None
    views: int = 40
    volume_rate: float = 0.06
    max_tilt: float = 45.0

    def __post_init__(self) -> None:
        positive = "finite and > 0"
        checks = {
            "max_steps": (self.max_steps is None or self.max_steps >= 1, ">= 1"),
            "max_minutes": (self.max_minutes is None or 0.0 < self.max_minutes < math.inf, positive),
            "stop_after": (self.stop_after is None or self.stop_after >= 1, ">= 1"),
            "views": (self.views >= 2, ">= 2"),
            "volume_rate": (0.0 < self.volume_rate < math.inf, positive),
            "max_tilt": (0.0 <= self.max_tilt <= 60.0, "in [0, 60] (degrees)"),
        }
        for name, (valid, wanted) in checks.items():
            if not valid:
                raise ValueError(f"trainer.{name}={getattr(self, name)}: must be {wanted}")

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
