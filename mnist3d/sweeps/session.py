"""A sweep from its first run to its last: who goes next, what came of each session, what is written after it."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError, one_line
from ..runs.config import Config
from ..storage.exhausted import out_of_memory
from ..storage.last_two import previous
from ..storage.run_directory import RESUME_FILE, VOLUME_FILE
from .folder import PAGE_FILE, Record, SweepFolder, has_file, last_progress, saved_step
from .halving import Standing, best_run, next_run
from .jobs import BEAT, LOCKED, Executor, Job, Outcome, is_free, variables_of
from .options import SweepOptions
from .page import page_of
from .telling import Telling, status_of

MOST_LOST = 3  # sessions of a run in a row that end through no fault of its own and bring it no further
LOOK_SECONDS = 5.0  # between two looks at how far the runs are
SAVE_SECONDS = 60.0  # between two notes of it, which a killed sweep goes on from
NOTED = 2000.0  # runs a second: notes of many runs come less often, so that they take a small share of a core
NO_PAGE = ("--viewer.enabled=false", "--scorecard.train_classifiers=false")  # each would want a port, or more cores
SIGNALLED = 128  # a code above is that of a process that a signal has ended, in a shell's way of counting


@dataclass(frozen=True)
class Session:
    """A session under way.

    Args:
        record: of its run.
        began: by the clock.
        step: of the run, at the beginning.
        seconds: that its earlier sessions took.
    """

    record: Record
    began: float
    step: int
    seconds: float


@dataclass
class Sweep:
    """A sweep and all that it needs.

    Args:
        folder: taken for this process.
        options: of the sweep.
        configs: of each run, by its name.
        records: of each run, in the order of the plan.
        executor: where sessions run; closed at the end.
        score: what runs are compared by, from a run directory and its configuration.
        draw: the view atlas of a run, as a JPEG, likewise; None: there are none.
        telling: what is said meanwhile.
        module: what Python runs for a session.
        seconds: that earlier sessions of the sweep have taken.
        conclude: writes what comes of the runs, after the last of them; default `PAGE_FILE`.
        clock: in seconds.
        sleep: for so many seconds.
    """

    folder: SweepFolder
    options: SweepOptions
    configs: Mapping[str, Config]
    records: list[Record]
    executor: Executor
    score: Callable[[Path, Config], float | None]
    draw: Callable[[Path, Config], bytes] | None
    telling: Telling
    module: str
    seconds: float = 0.0
    conclude: Callable[[], None] | None = None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def run(self) -> None:
        """Run what is left. However it ends, what is on disk says how each run stands."""
        began, before = self.clock(), self.seconds
        self._running: dict[str, Session] = {}
        self._maps = [each for each in self.records if each.standing.state in ("done", "dropped")]
        self._looked = self._saved = began
        self._unsaved = cancelled = False
        # Runs in which a process of a killed sweep may still be at work, and until when that is waited for.
        self._held = {each.name: began + LOCKED for each in self.records if each.standing.state == "waiting"}
        try:
            while True:
                self.seconds = before + self.clock() - began
                for outcome in self.executor.poll():
                    self._take(outcome)
                if not self.time_is_over:
                    self._begin()
                elif not cancelled:
                    cancelled = True
                    for name in self._running:
                        self.executor.cancel(name)
                if not self._running and (self.time_is_over or not self._held):
                    break
                self._look()
                if not self._draw():
                    self.sleep(BEAT)
            self._conclude()
        except BaseException:
            if self._running:
                self.telling.line("ending the runs, which save first ...")
            raise
        finally:
            self.telling.close()
            self.executor.close()
            taken = {outcome.name: outcome.seconds for outcome in self.executor.poll()}
            for name, session in self._running.items():
                session.record.standing.state = "waiting"
                session.record.seconds = session.seconds + taken.get(name, self.clock() - session.began)
                session.record.step, _ = saved_step(self.folder.run(name))
            self.seconds = before + self.clock() - began
            self.folder.save(self.records, self.seconds)

    @property
    def time_is_over(self) -> bool:
        """Whether the sweep has taken all the minutes that it may."""
        return self.options.minutes is not None and self.seconds >= 60.0 * self.options.minutes

    @property
    def best(self) -> Record | None:
        """The complete run with the best score."""
        found = best_run([each.standing for each in self.records])
        return None if found is None else self.records[found]

    def _begin(self) -> None:
        """Fill the free places."""
        for name, until in [*self._held.items()]:
            if self.clock() > until or is_free(self.folder.run(name)):
                del self._held[name]
        while len(self._running) < self.executor.places:
            chosen = next_run([*map(self._standing, self.records)], self._rungs, self.options.halving.eta)
            if chosen is None:
                return
            record = self.records[chosen]
            run = self.folder.run(record.name)
            record.step, complete = saved_step(run)
            if self._is_there(record, complete):  # a sweep was killed before it had taken note
                self._passed(record, complete)
                continue
            if not self._can_begin(record):
                continue
            record.standing.state, record.progress, record.error = "running", last_progress(run), ""
            self._running[record.name] = Session(record, self.clock(), record.step, record.seconds)
            self.executor.submit(self._job(record))
            self._note()

    def _can_begin(self, record: Record) -> bool:
        """Whether a session can begin in a run's folder, from its checkpoint or anew; else the run has failed.

        What a process left that was killed before its first checkpoint makes room. A volume never does.
        """
        run = self.folder.run(record.name)
        if has_file(run, RESUME_FILE) or not run.is_dir() or run.is_symlink():
            return True
        if has_file(run, VOLUME_FILE):
            self._failed(record, f"{run}: holds a volume and no checkpoint to go on from; move it away to begin anew")
        elif not is_free(run):
            self._failed(record, f"{run}: in use by another process; wait until it has ended")
        else:
            shutil.rmtree(run, ignore_errors=True)
            return True
        return False

    def _standing(self, record: Record) -> Standing:
        """A run whose last process has not ended yet counts as one that runs."""
        held = record.name in self._held
        return Standing("running", record.standing.scores) if held else record.standing

    @property
    def _rungs(self) -> int:
        return len(self.options.halving.rungs)

    def _target(self, record: Record) -> int | None:
        """The step at which the session ends; None for the end of the run."""
        passed, steps = len(record.standing.scores), self.configs[record.name].trainer.max_steps
        if passed >= self._rungs or steps is None:
            return None
        return max(1, round(self.options.halving.rungs[passed] * steps))

    def _is_there(self, record: Record, complete: bool) -> bool:
        target = self._target(record)
        return complete or (target is not None and record.step >= target)

    def _job(self, record: Record) -> Job:
        """The next session of a run: from its checkpoint, where it has one."""
        run = self.folder.run(record.name)
        # All that the run is, said again: its own word for what it imports and reads is not taken.
        place = f"--resume={run}" if has_file(run, RESUME_FILE) else f"--run_dir={run}"
        words = [place, f"--config={self.folder.config(record.name)}"]
        target = self._target(record)  # said always: a run that goes on remembers that of its last session
        words += [*NO_PAGE, f"--trainer.stop_after={'null' if target is None else target - record.step}"]
        log, variables = str(self.folder.log(record.name)), variables_of(self.options.cores)
        return Job(record.name, self.module, tuple(words), str(Path.cwd()), log, variables)

    def _take(self, outcome: Outcome) -> None:
        """Note how a session ended."""
        session = self._running.pop(outcome.name)
        record, before = session.record, session.step
        record.seconds, record.progress = session.seconds + outcome.seconds, 0.0
        record.step, complete = saved_step(self.folder.run(record.name))
        signalled = outcome.code is not None and (outcome.code < 0 or outcome.code > SIGNALLED)
        if outcome.code == 0 and self._is_there(record, complete):
            self._passed(record, complete)
        elif self.time_is_over:
            record.standing.state = "waiting"
        elif outcome.lost or signalled or outcome.code == 0:
            record.lost = 1 if record.step > before else record.lost + 1
            why = outcome.error or f"ended by itself with code {outcome.code}"
            if record.lost < MOST_LOST:
                record.standing.state = "waiting"
                self._held[record.name] = self.clock() + LOCKED
                self.telling.line(f"{record.name}: {why}; it goes on from step {record.step}")
            else:
                self._failed(record, f"{why} ({record.lost} times)")
        else:
            self._failed(record, outcome.error or f"exit code {outcome.code}")
        self._note()

    def _passed(self, record: Record, complete: bool) -> None:
        """Score a run that has reached a rung or its end."""
        try:
            score = self.score(self.folder.run(record.name), self.configs[record.name])
        except Exception as error:  # also a mistake in the user's volume, or no memory: the other runs go on
            self._failed(record, in_words(error))
            return
        record.lost, record.progress = 0, 0.0
        record.standing.scores.append(score)
        record.standing.state = "done" if complete else "paused"
        if complete:
            self._maps.append(record)
        self._note()
        self.telling.row(record)

    def _failed(self, record: Record, why: str) -> None:
        record.standing.state, record.error = "failed", one_line(why)
        self._note()
        self.telling.row(record)

    def _note(self) -> None:
        """Write how the runs stand, now or, where they are many, in a moment."""
        self._unsaved = True
        if self.clock() - self._saved >= len(self.records) / NOTED:
            self.folder.save(self.records, self.seconds)
            self._saved, self._unsaved = self.clock(), False

    def _look(self) -> None:
        """See how far the runs are, and say it; note it now and then, for a sweep that is killed."""
        if self._unsaved or self.clock() - self._saved >= SAVE_SECONDS:
            self._note()
        if self.clock() - self._looked < LOOK_SECONDS:
            return
        self._looked = self.clock()
        for name, session in self._running.items():
            run = self.folder.run(name)
            session.record.seconds = session.seconds + self._looked - session.began
            session.record.step, _ = saved_step(run)
            session.record.progress = last_progress(run)
        self.telling.status(status_of(self.records, len(self._running), self.executor.places))

    def _draw(self) -> bool:
        """Draw a view atlas that is still to be drawn; whether there was one."""
        if self.draw is None or not self._maps:
            return False
        record = self._maps.pop(0)
        path = self.folder.map(record.name)
        if not path.is_file():
            try:
                content = self.draw(self.folder.run(record.name), self.configs[record.name])
                self.folder.write_map(record.name, content)
            except Exception as error:  # as for a score
                self.telling.line(f"{record.name}: no view atlas ({in_words(error)})")
        return True

    def _conclude(self) -> None:
        """After the last session: what was not good enough, all maps, the page, and what need not be kept."""
        if not self.time_is_over:
            for record in self.records:
                if record.standing.state == "paused":
                    record.standing.state = "dropped"
                    self._maps.append(record)
                    self.telling.row(record)
        while self._draw():
            pass
        if self.conclude is None:
            self.folder.write(PAGE_FILE, page_of(self.folder, self.records, self.folder.path.name, self.best))
        else:
            self.conclude()
        over = all(each.standing.state in ("done", "dropped") for each in self.records)
        if self.options.keep == "best" and over and (best := self.best) is not None:
            for record in self.records:
                if record is not best:
                    remove_checkpoints(self.folder.run(record.name))


def in_words(error: Exception) -> str:
    """What went wrong with one run, for its row."""
    return str(error) if isinstance(error, UserError) else out_of_memory(error) or f"{type(error).__name__}: {error}"


def remove_checkpoints(run: Path) -> None:
    """What only going on with a run needs: it is complete, and its volume, figures and views stay."""
    for name in (RESUME_FILE, previous(Path(RESUME_FILE)).name, previous(Path(VOLUME_FILE)).name):
        (run / name).unlink(missing_ok=True)


def final_table(telling: Telling, records: Sequence[Record]) -> list[str]:
    """The lines of the last table: the best first."""
    ordered = sorted(records, key=lambda each: (-len(each.standing.scores), -(each.score or 0.0)))
    return [telling.formatted(*telling.titles), *map(telling.row_of, ordered)]
