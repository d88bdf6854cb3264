"""A run and its page: a callback that hands copies of the averaged volume to the viewer, and obeys its buttons.

The only place that knows both trainer and viewer. It never lends out the weights themselves.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from tqdm import tqdm

from ..evaluation import Classifiers
from ..invocation import program_name
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


class LivePage:
    """Shows a run on the page. No failure of the page reaches the run.

    Args:
        live: what is shared with the viewer.
        viewer: that serves it.
        scores: the run's scores, or None.
        records: lines of `stats.jsonl` of earlier sessions of a resumed run.
    """

    def __init__(
        self,
        live: Live,
        viewer: Viewer,
        scores: Scores | None = None,
        records: list[dict[str, Any]] | None = None,
    ) -> None:
        self.live, self.viewer, self.scores = live, viewer, scores
        self.curves, self.score_curves, self.last_score = read_curves(records or [])
        self.pace = Pace()
        self.next_copy = self.next_figures = 0.0
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
                self._tell(trainer, "finished")
                self.viewer.wake()
                time.sleep(LAST_VIEW_SECONDS)
                until = time.monotonic() + LAST_FIGURES_SECONDS
                while not self.viewer.all_told() and time.monotonic() < until:
                    time.sleep(PAUSE_POLL)
        except Exception as error:  # the volume is saved already, and nothing here may change that
            _say(f"the viewer could not show the end of the run: {' '.join(str(error).split())[:200]}")
        finally:
            self.viewer.close()

    def _show(self, trainer: Trainer, report: StepReport) -> None:
        now = time.monotonic()
        self.pace.note(trainer, report)
        self.live.look_for_reader()
        self.curves.add(losses_of({"step": report.step, **report.metrics}))
        score = None if self.scores is None else self.scores.latest
        if score is not None and score is not self.last_score:
            self.last_score = score
            self.score_curves.add(scores_of(score))
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
        histogram, note = self._histogram(trainer, report)
        training = self.live.reader_training
        self.live.tell(
            {
                "state": state,
                "step": trainer.steps_done,
                "progress": trainer.progress,
                "rate": plain(self.pace.rate) if state in ("training", "stopping") else None,
                "seconds": plain(trainer.seconds),
                "seconds_left": None if state == "finished" else plain(self.pace.seconds_left),
                "curves": self.curves.as_columns(),
                "curves_note": self.curves.note,
                "scores": self.score_curves.as_columns(),
                "why_no_scores": self._why_no_scores(trainer),
                "histogram": histogram,
                "histogram_note": note,
                "classifier_training": None if training is None else training.as_message(),
            }
        )

    def _why_no_scores(self, trainer: Trainer) -> str:
        if self.live.reader_training is not None and self.live.scene.reader is None:
            return self.live.reader_training.words
        if self.scores is None:
            return f"No scores during this run; {program_name('score')} scores it when it has ended"
        next_one = self.scores.every * (trainer.steps_done // self.scores.every + 1)
        return f"The first score comes at step {next_one}, or at the end"

    def _histogram(self, trainer: Trainer, report: StepReport | None) -> tuple[dict[str, Any], str]:
        if self.last_score is not None and (shares := histogram_of(self.last_score)):
            return shares, f"Classes among the legible views, step {plain(self.last_score.get('step'))}"
        if report is not None and (found := report.metrics.get("class_shares")):
            shares = [plain(share) or 0.0 for share in found]
            return dict(zip(trainer.class_names, shares, strict=False)), "Classes that the discriminator reads now"
        return {}, ""


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
    return LivePage(live, viewer, scores, records)
