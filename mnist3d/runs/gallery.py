"""Finished runs as scenes for the viewer.

The folders under one root, by name. A page names one of the folders that were listed to it; a path that a page sends
is never followed.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.images import load_images
from ..data.options import DataOptions
from ..data.sources import DOWNLOADED
from ..errors import DataError, RunError, VolumeFileError
from ..evaluation import Classifiers, cached_classifiers
from ..invocation import program_name, to_type
from ..storage.run_directory import VOLUME_FILE, RunDirectory
from ..viewer import Scene, Snapshot
from ..viewer.curves import histogram_of, read_curves
from ..volumes import Volume, read_description
from ..volumes.wrappers import FrozenField
from .loading import Run, load_sculpture
from .scorecard import SCORECARD_FILE, scorecard_of
from .trust import acts_of_data

KEPT = 3  # scenes in memory
LARGEST_CLASSIFIED = 128  # pixels; all images of a data set at more than that need gigabytes


class Gallery:
    """The runs under a folder.

    Args:
        root: whose subfolders are runs.
        leave_out: a run that is shown otherwise, or None.
        trusted: volume classes outside this package that may be built.
        trust: a run whose images may be read where they are no package's, or None.
    """

    def __init__(
        self,
        root: str | Path,
        leave_out: Path | None = None,
        trusted: Sequence[type[Volume]] = (),
        trust: Path | None = None,
    ) -> None:
        self.trusted = tuple(trusted)
        self.trust = None if trust is None else trust.resolve()
        self.root, self.leave_out = Path(root), None if leave_out is None else leave_out.resolve()
        self._open: OrderedDict[tuple[str, float, float], Scene] = OrderedDict()
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """Of the runs that have a volume, newest first."""
        return [path.parent.name for _, path in sorted(self._volumes(), reverse=True)]

    def _volumes(self) -> list[tuple[float, Path]]:
        found = []
        for path in self.root.glob(f"*/{VOLUME_FILE}"):
            try:
                if path.parent.resolve() != self.leave_out:
                    found.append((path.stat().st_mtime, path))
            except OSError:  # removed in the meantime
                continue
        return found

    def open(self, name: str) -> Scene:
        """The run of that name, as it lies on disk now.

        Raises:
            ValueError, RuntimeError: no such run, or a damaged one; one line.
        """
        for changed, path in self._volumes():
            if path.parent.name == name:
                with self._lock:
                    key = (name, changed, _changed(path.parent / SCORECARD_FILE))
                    if key not in self._open:
                        run = load_sculpture(path.parent, trusted=self.trusted)
                        self._open[key] = scene_of(run, name, path.parent.resolve() == self.trust)
                    self._open.move_to_end(key)
                    while len(self._open) > KEPT:
                        self._open.popitem(last=False)
                    return self._open[key]
        raise ValueError(f"{name}: there is no such run any more")


def scene_of(run: Run, name: str, trust: bool = False) -> Scene:
    """A finished run for the page, with its figures and, where they are cached, its classifiers.

    Args:
        run: the run.
        name: in the menu.
        trust: whether its images may be read where they are no package's: by them its classifiers are found.
    """
    records, unread = _records(run.path)
    curves, scores, last = read_curves(records)
    note = f"Classes among the legible views, step {last.get('step')}"[:100] if last is not None else ""
    try:
        step = read_description(run.path / VOLUME_FILE).get("step")
    except VolumeFileError:  # a volume file of another name, on its own
        step = None
    seconds = [
        found for record in records if isinstance(found := record.get("seconds"), int | float) and 0 <= found < 1e9
    ]
    classifiers, why_none = _classifiers(run.path, run.config.data, run.renderer.options.image_size, trust)
    card = scorecard_of(run.path)
    scored = bool(scores.points) or card is not None
    figures: dict[str, Any] = {
        "state": "finished",
        "step": step if isinstance(step, int) and abs(step) < 2**53 else None,
        "progress": 1.0,
        "rate": None,
        "seconds": seconds[-1] if seconds else None,
        "seconds_left": None,
        "curves": curves.as_columns(),
        "curves_note": unread or curves.note,
        "scores": scores.as_columns(),
        "why_no_scores": "" if scored else f"This run was not scored; {program_name('score')} does that.",
        "histogram": histogram_of(last),
        "histogram_note": note,
        "card": card,
    }
    return Scene(
        name,
        run.renderer.options,
        Snapshot(FrozenField(run.volume), 0, step if isinstance(step, int) else None),
        classifiers,
        figures,
        why_none,
    )


def _changed(path: Path) -> float:
    """When a file was last written, s; 0 where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _records(path: Path) -> tuple[list[dict[str, Any]], str]:
    """The lines of `stats.jsonl`; without them, why there are none."""
    try:
        return RunDirectory(path).read_stats(), ""
    except RunError as error:
        return [], str(error)


def _classifiers(path: Path, data: DataOptions, size: int, trust: bool) -> tuple[Classifiers | None, str]:
    """Classifiers from the cache, where they are found by the images; without them, why there are none.

    A run directory is not trusted by itself: none for images that it would have read or downloaded.
    """
    acts, local = acts_of_data(data), data.name in DOWNLOADED and Path("data").is_dir()
    if size > LARGEST_CLASSIFIED:
        score = program_name("score")
        return None, f"views of more than {LARGEST_CLASSIFIED} pixels are not read here; {score} reads them"
    if not trust and (data.path is not None or (acts and not local)):
        look = to_type("view", path, "--trust")
        return None, f"classifiers are found by their images, which are read only if you say so: {look} reads those"
    try:
        held_out = load_images(data, size, "held_out", download=False)
    except DataError as error:
        return None, " ".join(str(error).split())[:200]
    found = cached_classifiers(held_out.images, held_out.labels, held_out.class_names)
    if found is not None:
        return found, ""
    score = to_type("score", path, *(["--trust"] if acts else []))
    return None, f"no classifiers for these images yet: {score} trains them"
