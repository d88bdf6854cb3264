"""Contact sheets and turntables of a run, under `pictures/`."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..geometry.rotations import turntable
from ..rendering.pictures import SHEET_VIEWS, contact_sheet, sheet_views
from ..rendering.renderer import render_views
from ..storage.run_directory import RunDirectory
from ..training.objectives.targets import Targets
from ..training.report import StepReport
from ..training.trainer import Trainer

TARGET_COLUMNS = 12


class Pictures:
    """`reals.png` at the start, a contact sheet every few steps, a turntable at the end.

    Args:
        run: where they lie.
        targets: of the run: `targets.png` at the end shows what was asked for above what is seen; or None.
        every: steps between contact sheets.
    """

    def __init__(self, run: RunDirectory, targets: Targets | None = None, every: int = 500) -> None:
        self.run, self.targets, self.every = run, targets, every
        self.began = False

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        """Draw when it is time."""
        if not self.began:
            self.began = True
            chosen = torch.linspace(0, len(trainer.images) - 1, SHEET_VIEWS).long()
            self.run.write_picture("reals.png", contact_sheet(trainer.images[chosen].cpu(), columns=8))
        if report.step % self.every == 0:
            self._sheet(trainer, f"views_{report.step:06d}.png")

    def finish(self, trainer: Trainer) -> None:
        """The last sheet and the turntable."""
        self._sheet(trainer, "views.png")
        strip = render_views(trainer.averaged, trainer.renderer, turntable(24))
        self.run.write_picture("turntable.png", contact_sheet(strip, columns=12))
        if self.targets is not None:
            wanted = self.targets.images.cpu()
            shown = render_views(trainer.averaged, trainer.renderer, self.targets.rotations)
            self.run.write_picture("targets.png", contact_sheet(_in_turn(wanted, shown), columns=TARGET_COLUMNS))

    def _sheet(self, trainer: Trainer, name: str) -> None:
        self.run.write_picture(name, contact_sheet(sheet_views(trainer.averaged, trainer.renderer, trainer.poses), 8))


def _in_turn(wanted: Float[Tensor, "K 1 H W"], shown: Float[Tensor, "K 1 H W"]) -> Float[Tensor, "B 1 H W"]:
    """A row of what was asked for, below it what is shown, then the next row; short rows filled with black."""
    pairs = zip(wanted.split(TARGET_COLUMNS), shown.split(TARGET_COLUMNS), strict=True)
    return torch.cat([F.pad(part, (0,) * 7 + (TARGET_COLUMNS - len(part),)) for pair in pairs for part in pair])
