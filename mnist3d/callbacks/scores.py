"""The scorecard while a run goes on: in `stats.jsonl`, the progress line and, where it is installed, TensorBoard.

Views of the averaged volume are classified now and then, with random numbers of their own. The full scorecard of a
finished run is `mnist3d score`.
"""

import importlib.util
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..data.images import load_images
from ..data.options import DataOptions
from ..errors import DataError, shown
from ..evaluation import Classifiers, cached_classifiers, quick_score
from ..storage.run_directory import RunDirectory
from ..training.objectives.targets import Targets
from ..training.options import Interval
from ..training.report import StepReport
from ..training.trainer import Trainer
from .classifier_training import ClassifierTraining


@dataclass
class ScorecardOptions:
    """How often the views are scored during training.

    Args:
        every: Steps between two scores, >= 1, or training time with its unit, such as 10s; 0: no scores. The training
            clock stands still while views are scored.
        train_classifiers: Whether the classifiers that read the views are trained beside the run where the data has
            none yet: a minute or two of one core, at the lowest priority, and about 1 GB of memory. false: only by
            mnist3d score, or by the page's button.
    """

    every: int | str = 500
    train_classifiers: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.every, int):
            if self.every < 0:
                raise ValueError(f"scorecard.every={self.every}: must be >= 0 (steps; 0: no scores)")
            return
        try:
            Interval.of(self.every)
        except ValueError as error:
            wanted = f"a number of steps (0: no scores), or time: it {error}"
            raise ValueError(f"scorecard.every={shown(self.every)}: must be {wanted}") from None


def find_classifiers(
    options: ScorecardOptions, data: DataOptions, image_size: int, say: Callable[[str], None]
) -> Classifiers | ClassifierTraining | None:
    """The classifiers of a source's held-out images, or their training; never an error.

    Args:
        options: whether there are scores, and whether the training begins by itself.
        data: the source.
        image_size: pixels.
        say: is handed what the training has to say.

    Returns:
        None where the images have none and can have none, with the reason on stderr.
    """
    if options.every == 0:
        return None
    try:
        held_out = load_images(data, image_size, "held_out")
    except DataError as error:
        print(f"no scores during this run: {error}", file=sys.stderr)
        return None
    classifiers = cached_classifiers(held_out.images, held_out.labels, held_out.class_names)
    if classifiers is not None:
        return classifiers
    if held_out.labels is None:
        print("no scores during this run: the images have no classes that could be read", file=sys.stderr)
        return None
    training = ClassifierTraining(held_out, say, by_itself=options.train_classifiers)
    if not options.train_classifiers:
        print(f"no scores during this run: {training.words}", file=sys.stderr)
    return training


class Scores:
    """Scores the averaged volume every few steps.

    Args:
        run: where the figures go.
        classifiers: what the scores are read with, or their training, before whose end there are none.
        every: steps between scores, or training time, as `ScorecardOptions` has it; not 0.
    """

    def __init__(self, run: RunDirectory, classifiers: Classifiers | ClassifierTraining, every: int | str) -> None:
        self.run, self.every = run, Interval(None, every) if isinstance(every, int) else Interval.of(every)
        self._scored_at = 0.0  # s of training
        self.training = classifiers if isinstance(classifiers, ClassifierTraining) else None
        self._ready = classifiers if isinstance(classifiers, Classifiers) else None
        self.summary = ""
        self.latest: dict[str, Any] | None = None  # what stats.jsonl got last
        self.writer: Any = None
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(run.path / "tensorboard"))

    @property
    def classifiers(self) -> Classifiers | None:
        """None while they are trained, and where that has failed."""
        return self._ready if self.training is None else self.training.classifiers

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        """Score when it is time."""
        due = report.progress >= 1.0 or self.every.is_over(trainer.seconds - self._scored_at, report.step)
        if self.classifiers is None or not due:
            return
        began, self._scored_at = time.monotonic(), trainer.seconds
        score = quick_score(trainer.averaged, trainer.renderer, self.classifiers, trainer.poses)
        trainer.leave_out(time.monotonic() - began)  # who is scored more often is trained no less
        if score.legible is None:
            return
        figures = {"legible": score.legible, "clean": score.clean, "effective_classes": score.effective_classes}
        if not made_by_targets_only(trainer):  # then other views are nothing in particular, as they should be
            self.summary = f"{100.0 * score.legible:.0f} % legible, {score.effective_classes:.1f} classes"
        record = {key: round(value, 4) for key, value in figures.items() if value is not None}
        seconds = round(self._scored_at, 2)
        self.latest = {"step": report.step, **record, "histogram": score.histogram, "seconds": seconds}
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


def made_by_targets_only(trainer: Trainer) -> bool:
    """Whether nothing but targets says what the views show, and so nothing where there is none."""
    return {objective.name for objective in trainer.each_objective()} == {Targets.name}
