"""Where a field is empty, so that a view need not ask there.

A coarse grid of flags: computed once from a volume that does not change meanwhile, or kept up with one that is fitted.
Not for dense volumes, whose kernel reads every voxel.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ..geometry.grids import voxel_centres
from .base import Field

CELLS = 64  # an edge
# Skipped along a whole diameter (2 world units) this intercepts 1/510 of the light: half a grey level of 8 bits.
EMPTY_BELOW = 1.0 / 1020.0
PROBES_AT_ONCE = 2**18
# While a field is fitted. At first all of it moves, and what is empty for a moment may fill again.
MOVING_CELLS, FIRST, EVERY, DECAY = 48, 64, 16, 0.8
MOVING_EMPTY_BELOW = 0.01  # for a depth of 1: along a whole diameter it is a fiftieth of that


@dataclass(frozen=True)
class Occupancy:
    """Which cells of [-1, 1]^3 a field may fill.

    Args:
        cells: (Z, Y, X) flags.
        probes: how many points the field was asked for.
    """

    cells: Bool[Tensor, "Z Y X"]
    probes: int

    def __call__(self, points: Float[Tensor, "*P 3"]) -> Bool[Tensor, "*P"]:
        """Whether a point's cell may be filled."""
        extent = len(self.cells)
        i, j, k = ((points + 1.0) * (0.5 * extent)).long().clamp(0, extent - 1).unbind(dim=-1)
        return self.cells[k, j, i]


class MovingOccupancy:
    """The cells that a field which is being fitted may fill: those, and their neighbours, whose highest attenuation of
    late is above a threshold.

    Every 16 steps the field is asked at a random point of each cell in the ball, and what was found before counts four
    fifths. An empty cell is asked too. It comes back where the field fills it, by its weights' or its neighbours' part
    in other cells; by itself it has no gradient.

    Args:
        depth: optical depth of what is fitted; a cell whose attenuation is below a hundredth of it is empty.
        first: step from which cells are skipped. Before, what has not come up yet would be taken for empty.

    Source:
        Mueller et al., "Instant neural graphics primitives with a multiresolution hash encoding" (2022), appendix E.2.
    """

    def __init__(self, depth: float = 1.0, first: int = FIRST) -> None:
        self._empty_below, self._first = MOVING_EMPTY_BELOW * depth, first
        self._most = torch.zeros(MOVING_CELLS, MOVING_CELLS, MOVING_CELLS)
        self._found: Occupancy | None = None
        axis = voxel_centres(MOVING_CELLS).float()
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        centres = torch.stack([x, y, z], dim=-1)
        self._asked = centres.norm(dim=-1) < 1.0 + 3.0**0.5 / MOVING_CELLS
        self._centres = centres[self._asked]

    @torch.no_grad()
    def at_step(self, step: int, field: Field, generator: torch.Generator) -> Occupancy | None:
        """Where to ask in a step; None: everywhere, as it is early, or as all is empty.

        Args:
            step: done so far; each is asked for once, in turn.
            field: as it is now, on the CPU or elsewhere.
            generator: of the points, on the CPU.
        """
        if step < self._first or (step - self._first) % EVERY:
            return self._found
        like = field.like()
        points = self._centres + (torch.rand(self._centres.shape, generator=generator) - 0.5) * (2.0 / MOVING_CELLS)
        found = torch.cat([field(part.to(like))[0].float().cpu() for part in points.split(PROBES_AT_ONCE)])
        self._most[self._asked] = torch.maximum(DECAY * self._most[self._asked], found)
        filled = (~(self._most < self._empty_below)).float()  # NaN must be seen
        cells = F.max_pool3d(filled[None], 3, stride=1, padding=1)[0] > 0
        self._found = Occupancy(cells.to(like.device), len(points)) if bool(cells.any()) else None
        return self._found


@torch.no_grad()
def occupied_cells(field: Field, cells: int = CELLS) -> Occupancy:
    """The cells in which a field, or in whose neighbours, attenuation is above 1/1020 at the centre.

    Empty cells are those that are below it together with all 26 neighbours, so a structure must be thinner than a cell
    (1/32 world unit, about half a pixel of a 28-pixel view) and lie between the centres to be missed.

    Args:
        field: asked for its attenuation at the cells' centres.
        cells: along each edge.
    """
    device = field.like().device
    axis = voxel_centres(cells).to(device, torch.float32)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    centres = torch.stack([x, y, z], dim=-1)
    # Half a diagonal beyond the ball: cells that it cuts have their centre outside.
    asked = centres.norm(dim=-1) < 1.0 + 3.0**0.5 / cells
    attenuation = torch.cat([field(part)[0] for part in centres[asked].split(PROBES_AT_ONCE)])
    filled = torch.zeros(cells, cells, cells, device=device)
    # not "above": a field that answers NaN must be asked, and seen
    filled[asked] = (~(attenuation < EMPTY_BELOW)).to(filled)
    return Occupancy(F.max_pool3d(filled[None], 3, stride=1, padding=1)[0] > 0, int(asked.sum()))
