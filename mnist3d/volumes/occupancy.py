"""Where a field is empty, so that a view without gradients need not ask there.

A coarse grid of flags, computed once from a volume that does not change meanwhile. Not for training, where a cell
that is empty now may fill, nor for dense volumes, whose kernel reads every voxel.
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
