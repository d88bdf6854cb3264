"""Watches the other processes of a run: none is waited for in vain, and all of them end with the same word.

Each process counts in the store that all of them have, from a thread of its own; the first watches all, the others
the first. How long something takes does not matter, whoever counts is alive.
"""

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ..invocation import program_name
from ..training.processes import Processes
from .launcher import Place
from .signals import say

END, TROUBLE = "end", "trouble"
FAILED = 2  # exit code


@dataclass(frozen=True)
class Limits:
    """How long is waited, in seconds.

    Args:
        join: for all processes of a run to come.
        beat: between two counts.
        silent: without a count, after which a process is given up.
        after_error: likewise, once the connection to some process is lost.
        grace: for the first process to end in order, where it waits for one that is gone.
        goodbye: for the others to hear how the run has ended.
    """

    join: float = 600.0
    beat: float = 1.0
    silent: float = 15.0
    after_error: float = 5.0
    grace: float = 4.0
    goodbye: float = 5.0


@dataclass(frozen=True)
class Word:
    """How a run ends.

    Args:
        rank: of the process that ended it.
        code: exit code of all.
        line: for people; "" where they know.
        gone: whether that process says nothing any more.
    """

    rank: int
    code: int
    line: str = ""
    gone: bool = False

    def as_bytes(self) -> str:
        """For the store."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, content: bytes) -> "Word":
        """From `as_bytes`."""
        return cls(**json.loads(content))


class Watch:
    """Two threads: one counts and reads the counts of others, one ends this process where there is reason to.

    Args:
        connect: opens a connection to the store, of this thread's own: another would wait with who waits.
        place: of this process.
        names: of all, such as "rank 2 of 4 (on node7, process 4711)".
        limits: how long is waited.
    """

    def __init__(self, connect: Callable[[], Any], place: Place, names: list[str], limits: Limits) -> None:
        self.connect, self.place, self.names, self.limits = connect, place, names, limits
        self.processes = Processes()
        self.store: Any = None  # where the processes connect; served by this one, it lives as long as the watch
        self.advice: Callable[[], str] = lambda: "what was saved stays; go on with --resume" if place.rank else ""
        self.heard: Callable[[], None] = lambda: None  # called once there is a word
        self.word: Word | None = None
        self.came = threading.Event()
        self.over = threading.Event()
        self.parted = threading.Event()  # all others have heard the word of this process
        self.trouble = False  # the connection to some process is lost
        self._short_from: float | None = None
        self._to_tell: Word | None = None
        self._unreachable = False
        self._threads: list[threading.Thread] = []
        now = time.monotonic()
        self._talked = now
        self._watched = [rank for rank in range(place.count) if rank != place.rank] if place.rank == 0 else [0]
        self._seen = dict.fromkeys(self._watched, (b"", now))

    def start(self) -> None:
        """Begin."""
        for target in (self._talk, self._judge):
            thread = threading.Thread(target=target, name=f"processes: {target.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)

    @property
    def is_on(self) -> bool:
        """Whether it can still end this process."""
        return self._threads[-1].is_alive()

    def close(self) -> None:
        """End both threads: one that lived while the interpreter takes itself apart would abort it."""
        self.over.set()
        for thread in self._threads:
            thread.join(self.limits.goodbye)

    def why(self) -> str:
        """What became of the process that is missing; waits until it is known."""
        self.trouble = True
        self.came.wait(self.limits.silent + self.limits.after_error)
        word = self.word or Word(self.place.rank, FAILED, "the connection to another process is lost")
        return self._with_advice(word)

    def tell(self, word: Word) -> None:
        """How the run ends, to all."""
        if self.word is None:
            self.word = self._to_tell = word
            self.came.set()

    def _talk(self) -> None:
        count = 0
        try:
            store = self.connect()
            while True:
                over = self.over.wait(self.limits.beat if self._to_tell is None else 0.0)
                count += 1
                store.set(f"beat/{self.place.rank}", f"{count}")
                if self._to_tell is not None:
                    store.compare_set(END, "", self._to_tell.as_bytes())
                    store.set(f"bye/{self.place.rank}", "1")
                    self._to_tell = None
                if over:
                    return
                self._read(store)
                self._talked = time.monotonic()
        except Exception:  # whatever it was, who cannot be asked is gone
            self._unreachable = True

    def _read(self, store: Any) -> None:
        if self.word is None and store.check([END]):
            self.word = Word.read(store.get(END))
            store.set(f"bye/{self.place.rank}", "1")
            self.came.set()
        elif self.word is not None and self.place.rank == 0:
            others = [rank for rank in self._watched if not (self.word.gone and rank == self.word.rank)]
            if store.check([f"bye/{rank}" for rank in others]):
                self.parted.set()
        if self.trouble and self._short_from is None:
            store.set(TROUBLE, "1")
        if self._short_from is None and store.check([TROUBLE]):
            self._short_from = time.monotonic()
        for rank, beat in zip(self._watched, store.multi_get([f"beat/{each}" for each in self._watched]), strict=True):
            if beat != self._seen[rank][0]:
                self._seen[rank] = (beat, time.monotonic())

    def _judge(self) -> None:
        looked = time.monotonic()
        ends_at: float | None = None
        while not self.over.wait(0.0 if self.place.rank and self.came.is_set() else self.limits.beat / 2.0):
            now = time.monotonic()
            if now - looked > self.limits.silent / 2.0:  # this process was stopped: the others were not silent
                self._talked = now
                self._seen = {rank: (beat, now) for rank, (beat, _) in self._seen.items()}
            looked = now
            if self.word is None and (gone := self._gone(now)) is not None:
                self.tell(Word(gone, FAILED, f"{self.names[gone]} has ended or does not answer", gone=True))
            if self.word is None:
                continue
            if self.place.rank:
                self._leave(self.word)
            if not self.processes.lost:
                self.processes.lost = True
                ends_at = now + self.limits.grace
                self.heard()
            if not self.processes.waiting:
                ends_at = now + self.limits.grace  # it comes to an end by itself
            elif ends_at is not None and now >= ends_at:
                self._end_now(self.word)

    def _gone(self, now: float) -> int | None:
        """A process that does not count any more."""
        limit = self.limits.silent
        if self._short_from is not None and now - self._short_from > self.limits.after_error:
            limit = self.limits.after_error
        for rank, (_, seen) in self._seen.items():
            if now - seen > limit:
                return rank
        return 0 if self._unreachable or now - self._talked > self.limits.silent else None

    def _with_advice(self, word: Word) -> str:
        return "; ".join(part for part in (word.line, self.advice()) if part)

    def _leave(self, word: Word) -> None:
        """The end of a process that is not the first: it has nothing to save, and says something only if it must."""
        until = time.monotonic() + self.limits.beat * 2
        while self._to_tell is not None and not self._unreachable and time.monotonic() < until:
            time.sleep(0.01)
        speaks = self.place.local_rank == 0 or self.place.rank == 1
        if word.rank == 0 and word.gone and speaks:
            say(f"{program_name('train')}: error: {self._with_advice(word)}")
        self.over.set()
        os._exit(word.code)

    def _end_now(self, word: Word) -> None:
        """The end of the first process where it waits for one that is gone; what is on disk is whole."""
        say(f"\n{program_name('train')}: error: {self._with_advice(word)}")
        os._exit(word.code)
