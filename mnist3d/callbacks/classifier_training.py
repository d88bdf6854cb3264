"""The training of the evaluation classifiers beside a run on images that have none yet, as terminal and page see it."""

from collections.abc import Callable
from typing import Any, Literal

from ..data.images import ImageSet
from ..errors import DataError, UserError
from ..evaluation import BackgroundTraining, Classifiers
from ..evaluation.learning import STEPS
from ..invocation import program_name
from ..storage.memory import check_fits
from ..training.report import StepReport
from ..training.trainer import Trainer
from .progress import clock

MEMORY = 900 * 2**20  # bytes that the process takes: torch, and comparing 2,000 images with each other
COPIES_OF_IMAGES = 6  # 28 pixels wide: here, in the pipe, there, and while a part of them is classified
PIXELS = 28 * 28
FLOAT = 4  # bytes
State = Literal["waiting", "running", "done", "failed"]


class ClassifierTraining:
    """A callback: has the classifiers trained beside a run, and ends that when the run ends.

    The run stays the same to the bit. It must be called before what asks for its classifiers.

    Args:
        held_out: images that the sculpture never sees, with labels.
        say: is handed each line for people.
        by_itself: whether it begins with the run; else it waits for `start`.
        steps: of training, each classifier.
    """

    def __init__(
        self, held_out: ImageSet, say: Callable[[str], None], by_itself: bool = True, steps: int = STEPS
    ) -> None:
        self._process = BackgroundTraining(held_out.images, held_out.labels, held_out.class_names, steps=steps)
        self._needed = MEMORY + COPIES_OF_IMAGES * len(held_out.images) * PIXELS * FLOAT
        self._say, self._by_itself = say, by_itself
        self._begun, self._refusal, self._told = False, "", ""
        self.classifiers: Classifiers | None = None
        """Set once, by the thread that trains."""

    def begin(self, trainer: Trainer) -> None:
        """Start with the run."""
        if self._by_itself:
            self.start()
            if not self._refusal:
                self._say(
                    "no classifiers for these images yet: two are trained beside the run, with what time it leaves"
                )

    def start(self) -> None:
        """Begin, or try again after a failure; returns at once, and does nothing while it runs. For any thread."""
        try:
            check_fits(self._needed, "scorecard: training the classifiers takes", "end other programs", DataError)
        except UserError as error:
            self._refusal = str(error)
            return
        self._refusal, self._begun = "", True
        self._process.start()

    def take(self) -> Classifiers | None:
        """The classifiers once they are trained. For the thread that trains."""
        if self.classifiers is None:
            self.classifiers = self._process.result()
        return self.classifiers

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        """Take the classifiers where they are ready, and say so; say why there will be none."""
        if self.classifiers is None and self.take() is not None:
            self._say("the classifiers of these images are trained: the scores begin")
        elif self.state == "failed" and self.words != self._told:
            self._told = self.words
            self._say(f"no scores during this run: {self.words}; the run goes on")

    def finish(self, trainer: Trainer) -> None:
        """End what is under way."""
        share = self._process.share
        unfinished = self.state == "running"
        self._process.close()
        if unfinished and self.take() is None:
            rest = f"{program_name('score')} on this run trains them"
            self._say(f"the classifiers were trained to {share:.0%} when the run ended: {rest}")

    @property
    def state(self) -> State:
        """How far it is; any thread may ask."""
        if self.classifiers is not None:
            return "done"
        if self._refusal or self._process.failure is not None:
            return "failed"
        return "running" if self._begun else "waiting"

    @property
    def share(self) -> float:
        """Of the training that is done, [0, 1]."""
        return self._process.share

    @property
    def seconds_left(self) -> float | None:
        """None while that would be a guess."""
        return self._process.seconds_left

    @property
    def words(self) -> str:
        """One line for people; empty once there are classifiers."""
        state = self.state
        if state == "waiting":
            return f"no classifiers for these images yet; {program_name('score')} on a finished run trains them"
        if state == "failed":
            return self._refusal or f"training the classifiers failed: {self._process.failure}"
        if state == "done":
            return ""
        left = self.seconds_left
        return f"classifiers {self.share:.0%}" + ("" if left is None else f", {clock(left)} left")

    @property
    def remark(self) -> str:
        """What the progress line shows while it runs, else nothing."""
        return self.words if self.state == "running" else ""

    def as_message(self) -> dict[str, Any]:
        """All of it for a page, as plain values."""
        state = self.state
        return {
            "state": state,
            "share": self.share,
            "seconds_left": self.seconds_left,
            "words": self.words,
            "can_start": state in ("waiting", "failed"),
        }
