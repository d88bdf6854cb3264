"""How much processor time drawing may take from a running training."""

import time
from collections.abc import Callable, Collection, Mapping

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
        most: seconds that are saved up at most, and at first.
    """

    def __init__(self, share: float, clock: Callable[[], float] = time.monotonic, most: float = BURST_SECONDS) -> None:
        self.share, self._clock, self._most = share, clock, most
        self.unlimited = False
        self._saved, self._at = most, clock()

    def part(self, share: float, most: float) -> "Allowance":
        """Another one by the same clock, to which so large a share of this one's seconds comes in."""
        return Allowance(share * self.share, self._clock, most)

    def saved(self) -> float:
        """Seconds that may be spent now; negative after work that took longer than was saved."""
        if self.unlimited:
            return self._most
        now = self._clock()
        self._saved = min(self._most, self._saved + self.share * (now - self._at))
        self._at = now
        return self._saved

    def pay(self, seconds: float) -> None:
        """After work: what it took."""
        if not self.unlimited:
            self._saved = self.saved() - seconds


class Turns:
    """Whose turn it is among kinds of work, so that each gets its share of the time, and none waits for ever.

    What one kind has no use for, the others get. A kind that had nothing to do gains nothing by that.

    Args:
        shares: of the time, by kind; which comes first wins where all have had theirs.
    """

    def __init__(self, shares: Mapping[str, float]) -> None:
        self._shares = dict(shares)
        self._had = dict.fromkeys(shares, 0.0)  # seconds, in units of the kind's share

    def choose(self, ready: Collection[str]) -> str:
        """The one of those that are ready, at least one, that has had the smallest part of its share."""
        least = min(self._had[kind] for kind in ready)
        for kind in self._had:
            if kind not in ready:
                self._had[kind] = max(self._had[kind], least)
        return min((kind for kind in self._shares if kind in ready), key=lambda kind: self._had[kind])

    def pay(self, kind: str, seconds: float) -> None:
        """After the work: what it took."""
        self._had[kind] += seconds / self._shares[kind]
