"""A run and its page: a callback that hands copies of the averaged volume to the viewer, and obeys its buttons.

The only place that knows both trainer and viewer. It never lends out the weights themselves.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..evaluation import Classifiers
from ..invocation import program_name, to_type
from ..training.report import StepReport
from ..training.trainer import Trainer
from ..viewer import Live, Viewer, ViewerOptions
from ..viewer.curves import histogram_of, losses_of, plain, read_curves, scores_of
from ..viewer.live import ReaderTraining
from ..viewer.scene import Shelf
from .pace import Pace
from .scores import Scores

COPY_SECONDS = 0.25  # between copies at least: faster than the page would draw them
COPY_SHARE = 0.005  # of the time that copying may take
FIGURES_SECONDS = 0.5
PAUSE_POLL = 0.1
LAST_VIEW_SECONDS = 1.0  # for the pages to fetch the view of the finished run
LAST_FIGURES_SECONDS = 5.0  # that the end of a run waits at most until each page was told that it has ended
LAST_MAP_SECONDS = 10.0  # likewise until each shows the finished volume: in its view, its reading and its map


class LivePage:
    """Shows a run on the page. No failure of the page reaches the run.

    Args:
        live: what is shared with the viewer.
        viewer: that serves it.
        scores: the run's scores, or None.
        records: lines of `stats.jsonl` of earlier sessions of a resumed run.
        path: of the run, for what one can do with it when it has ended; default its name.
    """

    def __init__(
        self,
        live: Live,
        viewer: Viewer,
        scores: Scores | None = None,
        records: list[dict[str, Any]] | None = None,
        path: Path | None = None,
    ) -> None:
        self.live, self.viewer, self.scores = live, viewer, scores
        self.path = Path(live.scene.name) if path is None else _as_typed(path)
        self.curves, self.score_curves, self.last_score = read_curves(records or [])
        self.pace = Pace()
        self.next_copy = self.next_figures = 0.0
        self.last_shares: tuple[dict[str, Any], str] = ({}, "")
        self.failed = False

    def announce(self) -> None:
        """Say where the page is, and what its token protects."""
        print(f"watch it: {self.viewer.access.printed_url}", file=sys.stderr, flush=True)
        if not self.viewer.access.local:
            print(self.viewer.access.who_can_open(live=True), file=sys.stderr, flush=True)

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        """Note the figures; when a page is open, hand over copies now and then; wait while paused."""
        if self.failed:
            return
        try:
            self._show(trainer, report)
        except Exception as error:  # whatever it was, the run goes on without its page
            self.failed = True
            self.live.paused = False
            _say(f"the viewer is off for the rest of this run: {' '.join(str(error).split())[:200]}")

    def finish(self, trainer: Trainer) -> None:
        """The last view and figures, then the end of the page."""
        try:
            if self.live.watched and not self.failed:
                self.viewer.allowance.unlimited = True  # nothing trains any more
                self._copy(trainer)
                self._note_score()
                self._tell(trainer, "finished")
                self.viewer.wake()
                time.sleep(LAST_VIEW_SECONDS)
                _wait_for(self.viewer.all_shown, LAST_MAP_SECONDS)
                _wait_for(self.viewer.all_told, LAST_FIGURES_SECONDS)
        except Exception as error:  # the volume is saved already, and nothing here may change that
            _say(f"the viewer could not show the end of the run: {' '.join(str(error).split())[:200]}")
        finally:
            self.viewer.close()

    def _show(self, trainer: Trainer, report: StepReport) -> None:
        now = time.monotonic()
        self.pace.note(trainer, report)
        self.live.look_for_reader()
        self.curves.add(losses_of({"step": report.step, **report.metrics}))
        self._note_score()
        if self.live.stop_asked:
            trainer.stop_requested = True
            _say("stopping after this step and saving: asked for on the page")
        if self.live.watched:
            if now >= self.next_copy:
                self._copy(trainer)
                took = time.monotonic() - now
                self.next_copy = now + max(COPY_SECONDS, took / COPY_SHARE)
            if now >= self.next_figures or trainer.stop_requested:
                self.next_figures = now + FIGURES_SECONDS
                self._tell(trainer, "stopping" if trainer.stop_requested else "training", report)
        if self.live.paused and not trainer.stop_requested:
            self._wait(trainer, report)

    def _note_score(self) -> None:
        score = None if self.scores is None else self.scores.latest
        if score is not None and score is not self.last_score:
            self.last_score = score
            self.score_curves.add(scores_of(score))

    def _wait(self, trainer: Trainer, report: StepReport) -> None:
        """Paused: the pages may use all the time that the training does not."""
        began = time.monotonic()
        _say("paused on the page; resume there, or stop with Ctrl-C")
        self._copy(trainer)
        self._tell(trainer, "paused", report)
        self.viewer.allowance.unlimited = True
        try:
            while self.live.paused and not self.live.stop_asked and not trainer.stop_requested:
                time.sleep(PAUSE_POLL)
                self.live.look_for_reader()
                if time.monotonic() >= self.next_figures and self.live.reader_training is not None:
                    self.next_figures = time.monotonic() + FIGURES_SECONDS
                    self._tell(trainer, "paused", report)
        finally:
            self.viewer.allowance.unlimited = False
            trainer.leave_out(time.monotonic() - began)
        if self.live.stop_asked:
            trainer.stop_requested = True
        self.next_figures = 0.0
        _say("going on" if not trainer.stop_requested else "stopping and saving")

    def _copy(self, trainer: Trainer) -> None:
        with torch.no_grad():
            weights = {key: value.detach().to("cpu", copy=True) for key, value in trainer.averaged.state_dict().items()}
        self.live.offer(weights, trainer.steps_done)
        self.viewer.wake()

    def _tell(self, trainer: Trainer, state: str, report: StepReport | None = None) -> None:
        histogram, note = self.last_shares = self._histogram(trainer, report)
        ended = state == "finished"
        self.live.tell(
            {
                "state": state,
                "step": trainer.steps_done,
                "progress": trainer.progress,
                "rate": plain(self.pace.rate) if state in ("training", "stopping") else None,
                "seconds": plain(trainer.seconds),
                "seconds_left": None if ended else plain(self.pace.seconds_left),
                "curves": self.curves.as_columns(),
                "curves_note": self.curves.note,
                "scores": self.score_curves.as_columns(),
                "why_no_scores": self._why_no_scores(trainer, ended),
                "histogram": histogram,
                "histogram_note": note,
                "classifier_training": self._classifier_training(ended),
                "look": to_type("view", self.path, *_trusting(trainer)) if ended else None,
            }
        )

    def _classifier_training(self, ended: bool) -> dict[str, Any] | None:
        """How far it is; at the end of the run, which ends it too, where it has stopped."""
        training = self.live.reader_training
        message = None if training is None else training.as_message()
        if not ended or message is None or message["state"] == "done":
            return message
        stopped = f"stopped at {message['share']:.0%}: " if message["state"] == "running" else ""
        words = f"{stopped}{to_type('score', self.path, '--trust')} trains the classifiers of these images"
        self.live.scene.why_no_reader = words
        return {**message, "state": "stopped", "words": words, "can_start": False}

    def _why_no_scores(self, trainer: Trainer, ended: bool) -> str:
        if ended:
            return "" if self.live.reader_training is not None else f"{to_type('score', self.path)} scores this run"
        if self.live.reader_training is not None and self.live.scene.reader is None:
            return self.live.reader_training.words
        if self.scores is None:
            return f"No scores during this run; {program_name('score')} scores it when it has ended"
        every = self.scores.every
        if every.steps is None:
            return f"The first score comes after {every.seconds:g} s of training, or at the end"
        next_one = every.steps * (trainer.steps_done // every.steps + 1)
        return f"The first score comes at step {next_one}, or at the end"

    def _histogram(self, trainer: Trainer, report: StepReport | None) -> tuple[dict[str, Any], str]:
        if self.last_score is not None and (shares := histogram_of(self.last_score)):
            return shares, f"Classes among the legible views, step {plain(self.last_score.get('step'))}"
        if report is not None and (found := report.metrics.get("class_shares")):
            shares = [plain(share) or 0.0 for share in found]
            return dict(zip(trainer.class_names, shares, strict=False)), "Classes that the discriminator reads now"
        return self.last_shares


def _as_typed(path: Path) -> Path:
    """As short as it can be typed here."""
    inside = path.is_absolute() and path.is_relative_to(Path.cwd())
    return path.relative_to(Path.cwd()) if inside else path


def _trusting(trainer: Trainer) -> list[str]:
    """What must stand behind a command that opens the run: the name of a volume class of somebody else's."""
    kind = type(trainer.volume)
    return [] if kind.__module__.startswith("mnist3d.") else ["--volume", f"{kind.__module__}.{kind.__qualname__}"]


def _wait_for(condition: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(PAUSE_POLL)


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)  # keeps the progress bar whole


def start_page(
    options: ViewerOptions,
    trainer: Trainer,
    name: str,
    classifiers: Classifiers | None,
    scores: Scores | None,
    shelf: Callable[[], Shelf] | None = None,
    records: list[dict[str, Any]] | None = None,
    training: ReaderTraining | None = None,
    path: Path | None = None,
) -> LivePage | None:
    """The callback that shows a run, or None with the reason in one line on stderr; never an error.

    Args:
        options: where; nothing is done unless they are enabled.
        trainer: of the run.
        name: of the run.
        classifiers: read the views, or None.
        scores: the run's scores, or None.
        shelf: makes the shelf of the other runs.
        records: lines of `stats.jsonl` of earlier sessions of a resumed run.
        training: makes the classifiers while the run goes on, or None.
        path: of the run; default its name.
    """
    if not options.enabled:
        return None
    try:
        live = Live(trainer.averaged, trainer.renderer.options, classifiers, name, trainer.steps_done, training)
        viewer = Viewer(options, live=live, shelf=None if shelf is None else shelf(), say=_say)
        viewer.start()
    except Exception as error:  # a page is never worth a run
        print(f"no page for this run: {' '.join(str(error).split())[:200]}", file=sys.stderr, flush=True)
        return None
    return LivePage(live, viewer, scores, records, path)
