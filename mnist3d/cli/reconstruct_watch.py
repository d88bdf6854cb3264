"""Who watches a reconstruction: the progress bar, and the page, which shows the volume while it is found."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from ..invocation import to_type
from ..reconstruction.fourier import resized
from ..reconstruction.refinement import refined
from ..reconstruction.report import shown_factor
from ..reconstruction.unknown_views import Stages
from ..rendering.renderer import RendererOptions
from ..runs.at_work import AtWork
from ..viewer import Live, Viewer, ViewerOptions
from ..volumes.voxel_grid import VoxelGrid

PAUSE_POLL = 0.1  # s
FIGURES_SECONDS = 0.5  # between two of the bar's values on the page
GLANCE_SECONDS, GLANCE_SHARE = 1.0, 0.05  # between two views of a volume that is being fitted; of the time for them
LAST_SECONDS = 5.0  # for open pages to fetch the last view
NO_READER = "the object has no classes that could be read in its views"


class Watch:
    """The bar and the page of a reconstruction. No failure of the page reaches the work.

    Args:
        work: the bar.
        page: what `open` serves; None: nothing.
        output: folder that is written.
        size: voxels along each edge of what is found.
    """

    def __init__(self, work: AtWork, page: ViewerOptions | None, output: Path, size: int) -> None:
        self.work, self.page, self.output, self.size = work, page, output, size
        self._live: Live | None = None
        self._viewer: Viewer | None = None
        self._began, self._rounds = time.monotonic(), 0
        self._next_figures = self._next_glance = 0.0
        self._curves: dict[str, list[float]] = {"step": [], "unexplained share": [], "resolution / Nyquist": []}

    def open(self) -> None:
        """Serve the page, and say where; to be called when nothing more can be refused."""
        if self.page is None:
            return
        try:
            empty = VoxelGrid.from_array(torch.zeros((self.size,) * 3))
            live = Live(empty, RendererOptions(self.size), name=self.output.name)
            live.scene.why_no_reader = NO_READER
            viewer = Viewer(self.page, live=live, say=_say)
            viewer.start()
        except Exception as error:  # a page is never worth a reconstruction
            _say(f"no page: {' '.join(str(error).split())[:200]}")
            return
        self._live, self._viewer = live, viewer
        _say(f"watch it: {viewer.access.printed_url}")
        if not viewer.access.local:
            _say(viewer.access.who_can_open(live=True))

    def tell(self, share: float, doing: str) -> None:
        """How far the work is; waits while the page has paused it.

        Raises:
            KeyboardInterrupt: the page has stopped it.
        """
        self.work.tell(share, doing)
        if self._live is None:
            return
        if self._live.paused and not self._live.stop_asked:
            self._figures("paused", share)
            while self._live.paused and not self._live.stop_asked:
                time.sleep(PAUSE_POLL)
            self._next_figures = 0.0
        if self._live.stop_asked:
            _say("stopping: asked for on the page")
            raise KeyboardInterrupt
        if time.monotonic() >= self._next_figures:
            self._next_figures = time.monotonic() + FIGURES_SECONDS
            self._figures("training", share)

    def show(self, stages: Stages) -> None:
        """The volume of the best start so far, or of the last round."""
        if self._live is None:
            return
        if stages.rounds is not None and stages.rounds.done > 0:
            found = refined(stages.rounds)
            self._curves["step"].append(stages.rounds.done)
            self._curves["unexplained share"].append(found.unexplained)
            self._curves["resolution / Nyquist"].append(2.0 * found.resolution / self.size)
            self.offer(found.volume, stages.rounds.done)
        elif stages.starts:
            best = min(range(len(stages.left)), key=lambda number: stages.left[number])
            self.offer(resized(stages.starts[best], self.size, 3).clamp_min(0.0), 0)

    def glance(self, attenuation: Callable[[], Float[Tensor, "N N N"]]) -> None:
        """Show a volume that is being fitted, now and then while a page is open.

        Args:
            attenuation: makes the grid, per world unit.
        """
        began = time.monotonic()
        if self._live is not None and self._live.watched and began >= self._next_glance:
            self.offer(attenuation(), self._rounds)
            now = time.monotonic()
            self._next_glance = now + max(GLANCE_SECONDS, (now - began) / GLANCE_SHARE)

    def offer(self, attenuation: Float[Tensor, "N N N"], round_: int) -> None:
        """A newer volume, attenuation per world unit, and the round of the refinement that it is of."""
        if self._live is None or self._viewer is None:
            return
        grid = VoxelGrid.from_array(attenuation.clamp_min(0.0) * shown_factor(attenuation))
        self._rounds = round_
        self._live.offer(grid.state_dict(), round_)
        self._viewer.wake()

    def end(self, attenuation: Float[Tensor, "N N N"]) -> None:
        """The volume that was found, and the files in which it lies; open pages have a moment to fetch it."""
        if self._live is None or self._viewer is None:
            return
        if self._live.watched:
            self._viewer.allowance.unlimited = True  # nothing else works any more
            self.offer(attenuation, self._rounds)
            self._figures("finished", 1.0)
            until = time.monotonic() + LAST_SECONDS
            time.sleep(PAUSE_POLL)
            while not (self._viewer.all_shown() and self._viewer.all_told()) and time.monotonic() < until:
                time.sleep(PAUSE_POLL)

    def close(self) -> None:
        """The page ends."""
        if self._viewer is not None:
            self._viewer.close()

    def _figures(self, state: str, share: float) -> None:
        assert self._live is not None
        seconds = time.monotonic() - self._began
        self._live.tell(
            {
                "state": state,
                "step": self._rounds,
                "progress": share,
                "rate": None,
                "seconds": seconds,
                "seconds_left": seconds * (1.0 / share - 1.0) if 0.0 < share < 1.0 else None,
                "curves": self._curves,
                "curves_note": f"{self.work.doing}; a step is a round of the refinement",
                "why_no_scores": "One object has no classes, so no views are scored.",
                "look": to_type("view", self.output / "volume.safetensors") if state == "finished" else None,
            }
        )


def page_options(options: Any) -> ViewerOptions | None:
    """Of `--viewer.enabled` and `--viewer.port`; None: no page."""
    given = vars(options)
    return ViewerOptions(port=given["viewer.port"]) if given["viewer.enabled"] == "true" else None


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)  # keeps the progress bar whole
