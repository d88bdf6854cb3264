"""The scorecard while a run goes on: in `stats.jsonl`, the progress line and, where it is installed, TensorBoard.

Views of the averaged volume are classified now and then, with random numbers of their own. The full scorecard of a
finished run is `mnist3d score`.
"""

import importlib.util
import sys
from dataclasses import dataclass
from typing import Any

from ..data.images import load_images
from ..data.options import DataOptions
from ..errors import DataError
from ..evaluation import Classifiers, cached_classifiers, quick_score
from ..invocation import program_name
from ..storage.run_directory import RunDirectory
from ..training.report import StepReport
from ..training.trainer import Trainer


@dataclass
class ScorecardOptions:
    """How often the views are scored during training.

    Args:
        every: Steps between two scores, >= 1; 0: no scores.
    """

    every: int = 500

    def __post_init__(self) -> None:
        if self.every < 0:
            raise ValueError(f"scorecard.every={self.every}: must be >= 0 (steps; 0: no scores)")


def find_classifiers(options: ScorecardOptions, data: DataOptions, image_size: int) -> Classifiers | None:
    """The classifiers of a source's held-out images, or None with the reason on stderr; never an error."""
    if options.every == 0:
        return None
    try:
        held_out = load_images(data, image_size, "held_out")
    except DataError as error:
        print(f"no scores during this run: {error}", file=sys.stderr)
        return None
    arguments = (held_out.images, held_out.labels, held_out.class_names)
    classifiers = cached_classifiers(*arguments)
    if classifiers is None:
        why = f"its classifiers are trained by {program_name('score')} on a finished run, once"
        print(f"no scores during this run: {why}", file=sys.stderr)
    return classifiers


class Scores:
    """Scores the averaged volume every few steps.

    Args:
        run: where the figures go.
        classifiers: what the scores are read with.
        every: steps between scores.
    """

    def __init__(self, run: RunDirectory, classifiers: Classifiers, every: int) -> None:
        self.run, self.classifiers, self.every = run, classifiers, every
        self.summary = ""
        self.latest: dict[str, Any] | None = None  # what stats.jsonl got last
        self.writer: Any = None
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(run.path / "tensorboard"))

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        """Score when it is time."""
        if report.step % self.every and report.progress < 1.0:
            return
        score = quick_score(trainer.averaged, trainer.renderer, self.classifiers, trainer.poses)
        if score.legible is None:
            return
        figures = {"legible": score.legible, "clean": score.clean, "effective_classes": score.effective_classes}
        self.summary = f"legible {score.legible:.2f} of {score.effective_classes:.1f} classes"
        record = {key: round(value, 4) for key, value in figures.items() if value is not None}
        self.latest = {"step": report.step, **record, "histogram": score.histogram}
        self.run.append_stats(self.latest)
        if self.writer is not None:
            for key, value in record.items():
                self.writer.add_scalar(f"scorecard/{key}", value, report.step)
            for key in report.metrics:
                if key.endswith("_loss") and (value := report.number(key)) is not None:
                    self.writer.add_scalar(f"loss/{key.removesuffix('_loss')}", value, report.step)

    def finish(self, trainer: Trainer) -> None:
        """Close what was opened."""
        if self.writer is not None:
            self.writer.close()
