"""What a sweep says while it goes on: a row a run that has come further, and how much is left.

On a terminal the last line is drawn anew; elsewhere a line comes now and then.
"""

import time
from collections.abc import Sequence
from typing import Any

from ..callbacks.progress import clock
from ..storage.labels import printable
from .folder import Record

TERMINAL_SECONDS, LINE_SECONDS = 1.0, 60.0  # between two lines of status
CLEAR = "\r\x1b[K"  # to the left, and empty to the right: ECMA-48
TITLES = ("run", "state", "step", "score", "minutes")


class Telling:
    """Rows and a status.

    Args:
        stream: where they go; None where there is nobody.
        names: of the runs, for the width of the first column.
        titles: of the columns.
    """

    def __init__(self, stream: Any, names: Sequence[str], titles: tuple[str, str, str, str, str] = TITLES) -> None:
        self.stream, self.titles = stream, titles
        self._width = max(map(len, [*names, titles[0]]))
        self._terminal = stream is not None and stream.isatty()
        self._drawn, self._last, self._headed = False, time.monotonic(), False

    def line(self, text: str) -> None:
        """A line above the status."""
        if self.stream is None:
            return
        clear = CLEAR if self._drawn else ""
        print(f"{clear}{printable(text)}", file=self.stream, flush=True)
        self._drawn = False

    def row(self, record: Record) -> None:
        """A row of the table."""
        if not self._headed:
            self._headed = True
            self.line(self.formatted(*self.titles))
        self.line(self.row_of(record))

    def row_of(self, record: Record) -> str:
        """The row as it is printed."""
        score = "-" if record.score is None else f"{record.score:.3f}"
        minutes = f"{record.seconds / 60.0:.1f}"
        text = self.formatted(record.name, record.standing.state, f"{record.step}", score, minutes)
        return f"{text}  {record.error}" if record.error else text

    def formatted(self, name: str, state: str, step: str, score: str, minutes: str) -> str:
        """Cells of a row at their places."""
        return f"{name:{self._width}}  {state:8}{step:>8}{score:>8}{minutes:>9}"

    def status(self, text: str) -> None:
        """The last line; nothing where one was drawn a moment ago."""
        now = time.monotonic()
        if self.stream is None or now - self._last < (TERMINAL_SECONDS if self._terminal else LINE_SECONDS):
            return
        self._last = now
        if self._terminal:
            print(f"{CLEAR}{printable(text)}", end="", file=self.stream, flush=True)
            self._drawn = True
        else:
            print(printable(text), file=self.stream, flush=True)

    def close(self) -> None:
        """Leave no half line."""
        if self._drawn and self.stream is not None:
            print(CLEAR, end="", file=self.stream, flush=True)
            self._drawn = False


def status_of(records: Sequence[Record], running: int, places: int) -> str:
    """How many are where, and about how long the rest takes.

    Args:
        records: of all runs.
        running: how many run.
        places: how many could.
    """
    counts = {state: sum(each.standing.state == state for each in records) for state in ("done", "failed", "paused")}
    parts = [f"{counts['done']} of {len(records)} done", f"{running} running"]
    parts += [f"{counts[state]} {state}" for state in ("paused", "failed") if counts[state]]
    left = seconds_left(records, places)
    return ", ".join(parts) + ("" if left is None else f"; about {clock(left)} left")


def seconds_left(records: Sequence[Record], places: int) -> float | None:
    """As the runs that are done took, no less than the longest rest of one run; None before anything is known.

    Args:
        records: of all runs.
        places: sessions at the same time.
    """
    taken = [each.seconds for each in records if each.standing.state == "done" and each.seconds > 0.0]
    if not taken:
        return None
    mean = sum(taken) / len(taken)
    states = ("waiting", "running", "paused")
    left = [1.0 - each.progress for each in records if each.standing.state in states]
    return mean * max(sum(left) / max(places, 1), *left, 0.0)
