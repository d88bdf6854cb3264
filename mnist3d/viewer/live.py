"""What a training run and its pages have in common: the newest weights, the figures, the buttons.

The few values that cross between the training thread and the viewer's threads, each replaced as a whole.
"""

import copy
import threading
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..invocation import program_name
from ..rendering.renderer import RendererOptions
from ..volumes.base import Volume
from ..volumes.wrappers import FrozenField
from .scene import Reader, Scene, Snapshot

LIVE_NAME = "this run"


@runtime_checkable
class ReaderTraining(Protocol):
    """What makes a reader while a run goes on; `callbacks.classifier_training.ClassifierTraining` is one."""

    @property
    def words(self) -> str:
        """How far it is, or why it has failed, in a line for people; empty when it is done."""
        ...

    def start(self) -> None:
        """Begin; any thread, returns at once, and does nothing where it has begun."""
        ...

    def take(self) -> Reader | None:
        """The reader once it is there; for the training thread."""
        ...

    def as_message(self) -> dict[str, Any]:
        """How far it is, for the page: state, share, seconds_left, words, can_start."""
        ...


class Live:
    """A scene that is still being made.

    Args:
        volume: of the same kind and size as the one in training; copied.
        renderer: how views of it are made.
        reader: says what a view shows, or None.
        name: in the menu.
        step: that the volume is at.
        reader_training: makes a reader where there is none yet, or None.
    """

    def __init__(
        self,
        volume: Volume,
        renderer: RendererOptions,
        reader: Reader | None = None,
        name: str = LIVE_NAME,
        step: int = 0,
        reader_training: ReaderTraining | None = None,
    ) -> None:
        self.reader_training = reader_training
        self._pattern = copy.deepcopy(volume).cpu().eval().requires_grad_(False)
        self.scene = Scene(name, renderer, Snapshot(FrozenField(copy.deepcopy(self._pattern)), 0, step), reader)
        if reader is None:
            self.scene.why_no_reader = f"no classifiers yet: {program_name('score')} on a finished run trains them"
        self._offered: tuple[int, int, dict[str, Tensor]] | None = None
        self._version = 0
        self._handing = threading.Lock()  # the last offer of a run must not get lost
        self.paused = False
        self.stop_asked = False
        self.watched = False

    def offer(self, weights: dict[str, Tensor], step: int) -> None:
        """Newer weights, which nobody changes any more; takes no time. For the training thread."""
        with self._handing:
            self._version += 1
            self._offered = (self._version, step, weights)

    @property
    def has_newer(self) -> bool:
        """Whether something was offered that no snapshot has yet."""
        return self._offered is not None

    def tell(self, figures: dict[str, Any]) -> None:
        """Newer figures; takes no time. For the training thread."""
        self.scene.figures = figures

    def look_for_reader(self) -> None:
        """Take the reader that has been made meanwhile, or say how far it is. For the training thread."""
        if self.reader_training is None or self.scene.reader is not None:
            return
        reader = self.reader_training.take()
        self.scene.why_no_reader = "" if reader is not None else self.reader_training.words
        self.scene.reader = reader

    @torch.no_grad()
    def refresh(self) -> None:
        """Make what was offered the scene's snapshot. For the render thread."""
        with self._handing:
            offered, self._offered = self._offered, None
        if offered is not None:
            version, step, weights = offered
            volume = copy.deepcopy(self._pattern)
            volume.load_state_dict(weights)
            self.scene.snapshot = Snapshot(FrozenField(volume), version, step)
