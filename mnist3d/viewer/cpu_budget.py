"""How much processor time drawing may take from a running training."""

import time
from collections.abc import Callable

import torch

BURST_SECONDS = 2.0  # saved up at most: some five seconds of fluid turning


def run_clock() -> Callable[[], float]:
    """A clock that counts the processor time that each of torch's threads gets.

    Beside other programs a run gets less of the processor in a second, and so must what draws for it.
    """
    threads = torch.get_num_threads()
    return lambda: time.process_time() / threads


class Allowance:
    """Processor seconds that come in at a steady rate, are saved up to a limit, and are paid after the work.

    Args:
        share: seconds that come in each second.
        clock: seconds.
    """

    def __init__(self, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.share, self._clock = share, clock
        self.unlimited = False
        self._saved, self._at = BURST_SECONDS, clock()

    def saved(self) -> float:
        """Seconds that may be spent now; negative after work that took longer than was saved."""
        if self.unlimited:
            return BURST_SECONDS
        now = self._clock()
        self._saved = min(BURST_SECONDS, self._saved + self.share * (now - self._at))
        self._at = now
        return self._saved

    def pay(self, seconds: float) -> None:
        """After work: what it took."""
        if not self.unlimited:
            self._saved = self.saved() - seconds
