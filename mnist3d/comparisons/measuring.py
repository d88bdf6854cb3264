"""What came of one run: the scorecard of its last volume, its learning curve, its size and its pace.

The classifiers are those of the scorecard, by which nothing is chosen here. They read the volume once all runs are
done, so that no run shares its core with a measurement.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ..data.images import ImageSet, load_images
from ..errors import DataError
from ..evaluation import Classifiers, Reading, fixed_rotations, load_classifiers, score_views
from ..evaluation.scores import FORMAT, VIEWS, Reference, read_reference
from ..geometry.rotations import turntable
from ..rendering.renderer import for_few_views, render_views
from ..runs.at_work import AtWork
from ..runs.building import shows_classes
from ..runs.class_paths import import_volume_class
from ..runs.config import Config
from ..runs.loading import Run, load_run
from ..runs.scorecard import MAX_BYTES, SCORECARD_FILE
from ..storage.plain_files import read_plain
from ..storage.run_directory import RunDirectory
from ..volumes.files import read_description

HALF = 0.5  # of the views legible: the goal whose time is measured
TURN_VIEWS = 16  # around the vertical axis, 22.5 degrees apart
LARGEST = 1e30  # of a number in a file
CURVES = ("seconds", "step", "legible", "effective_classes")


@dataclass
class Measured:
    """One run in figures. None stands for what is not known, such as legible of images without classes.

    Args:
        name: of the run.
        seed: of the run.
        state: done or failed, or what it is on the way there.
        error: of one that failed.
        path: of its folder.
        volume: class path.
        poses: the pose distribution that it is scored by, its own.
        scores: of the last volume, by the names of the scorecard, of views of its own pose distribution.
        classifiers: their version.
        weights: numbers that the volume consists of.
        bytes: of its file.
        steps: that it has made.
        seconds: of training that they took.
        peak_memory: bytes of its process, at most.
        curve: the scores under way, by the names in `CURVES`, in order.
        unread: why it has no scores; "" where it has.
    """

    name: str
    seed: int
    state: str = "done"
    error: str = ""
    path: str = ""
    volume: str = ""
    poses: str = ""
    scores: dict[str, float | None] = field(default_factory=dict)
    classifiers: str = ""
    weights: int | None = None
    bytes: int | None = None
    steps: int | None = None
    seconds: float | None = None
    peak_memory: int | None = None
    curve: list[dict[str, float]] = field(default_factory=list)
    unread: str = ""

    @property
    def steps_per_second(self) -> float | None:
        """Over the whole run: the first step, growth and saving included, scoring not."""
        return self.steps / self.seconds if self.steps and self.seconds else None

    @property
    def seconds_to_half(self) -> float | None:
        """Training time until half of the views were legible for the first time; infinite where they never were."""
        if not self.curve:
            return None
        return next((point["seconds"] for point in self.curve if point["legible"] >= HALF), float("inf"))


class Measuring:
    """Reads runs of a comparison; one pair of classifiers for each set of images."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Classifiers, ImageSet] | str] = {}
        self._references: dict[str, Reference] = {}

    def prepare(self, config: Config) -> str:
        """Have the classifiers for a run's images, trained now if there are none: a minute or two.

        Returns:
            why the run has no scores: no class of its images can be read, or all are in training; "" where it has.
        """
        found = self._of(config)
        return found if isinstance(found, str) else ""

    def measure(self, path: Path, config: Config, measured: Measured) -> None:
        """Fill in what a run directory says.

        Args:
            path: the run directory.
            config: of the run, as the user gave it.
            measured: of the run.

        Raises:
            UserError: it has no volume, or a damaged one.
        """
        run = opened(path, config)
        measured.poses, measured.volume = config.poses.name, config.volume["class_path"]
        known = self._of(config)
        if isinstance(known, str):  # its size, its pace and its memory are known all the same
            measured.unread = known
        else:
            card = self._scorecard(path, run, config, *known)
            own = card["poses"][config.poses.name]
            measured.scores = {name: number(value) for name, value in own.items() if not isinstance(value, dict)}
            measured.classifiers = str(card["classifiers"])
        measured.weights = sum(weight.numel() for weight in run.volume.parameters())
        directory = RunDirectory(path)
        measured.bytes = directory.volume_path.stat().st_size
        take_records(measured, directory.read_stats())
        saved = read_description(directory.volume_path)  # the last lines of the records may be some steps older
        step, seconds = number(saved.get("step")), number(saved.get("seconds"))
        if step is not None and seconds is not None:
            measured.steps, measured.seconds = int(step), seconds

    def turn(self, path: Path, config: Config) -> tuple[Float[Tensor, "B 1 H W"], Reading | None]:
        """The views around the vertical axis of a run's volume, and what is read in them; None where nothing can be."""
        run = opened(path, config)
        views = render_views(run.volume, for_few_views(run.renderer, run.volume, TURN_VIEWS), turntable(TURN_VIEWS))
        known = self._of(config)
        return views, None if isinstance(known, str) else known[0].read(views)

    def class_names(self, config: Config) -> list[str]:
        """Of the images of a run; empty where none are read."""
        known = self._of(config)
        return [] if isinstance(known, str) else known[0].class_names

    def _scorecard(
        self, path: Path, run: Run, config: Config, classifiers: Classifiers, training: ImageSet
    ) -> dict[str, Any]:
        """What is in the run's folder, if it is of this volume and these classifiers; else taken now and put there."""
        card = _kept(path, classifiers.version, config)
        if card is None:
            name = config.poses.name  # alone: 2,000 views of a field along its rays take a minute or more
            rotations = {name: fixed_rotations(config.poses, VIEWS)[name]}
            if (key := _images_of(config)) not in self._references:
                self._references[key] = read_reference(classifiers, training.images)
            known = self._references[key]
            card = score_views(run.volume, run.renderer, classifiers, training.images, rotations, known).as_dict()
            RunDirectory(path).write_json(SCORECARD_FILE, card)
        return card

    def _of(self, config: Config) -> tuple[Classifiers, ImageSet] | str:
        """The classifiers and the training images of a run, or why there are none."""
        if not shows_classes(config):
            return "the targets are letters or image files, and only digits and other classes of the data can be read"
        key = _images_of(config)
        if key not in self._known:
            size = config.renderer.image_size
            try:
                held_out, training = (load_images(config.data, size, part) for part in ("held_out", "training"))
            except DataError as error:
                self._known[key] = str(error)
                return str(error)
            with AtWork("training the classifiers") as work:
                images = (held_out.images, held_out.labels, held_out.class_names)
                self._known[key] = load_classifiers(*images, tell=work.tell), training
        return self._known[key]


def _images_of(config: Config) -> str:
    return f"{config.data} {config.renderer.image_size}"


def opened(path: Path, config: Config) -> Run:
    """A run of the user's own comparison, whose class of volume the user has named."""
    return load_run(path, trusted=[import_volume_class(config.volume["class_path"])])


def take_records(measured: Measured, records: list[dict[str, Any]]) -> None:
    """Fill in what the lines of `stats.jsonl` say: steps, seconds, memory and the learning curve."""
    for record in records:
        if "legible" in record:
            point = {name: value for name in CURVES if (value := number(record.get(name))) is not None}
            if len(point) == len(CURVES):
                measured.curve.append(point)
            continue
        seconds, peak = number(record.get("seconds")), number(record.get("peak_memory"))
        if seconds is not None:
            measured.steps, measured.seconds = record["step"], seconds
        if peak is not None:
            measured.peak_memory = max(measured.peak_memory or 0, int(peak))


def number(value: Any) -> float | None:
    """A finite number, whatever a file holds."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST
    return float(value) if usable else None


def _kept(path: Path, version: str, config: Config) -> dict[str, Any] | None:
    """The scorecard in a run's folder, where it is newer than the volume and can be used."""
    file = path / SCORECARD_FILE
    try:
        if file.stat().st_mtime < RunDirectory(path).volume_path.stat().st_mtime:
            return None
        card = json.loads(read_plain(file, MAX_BYTES))
        score = card["poses"][config.poses.name]
        usable = card["format"] == FORMAT and card["classifiers"] == version
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return card if usable and isinstance(score, dict) and score.get("count") == VIEWS else None
