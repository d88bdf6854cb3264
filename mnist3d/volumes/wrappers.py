"""Fields made of other fields: frozen, cut, all bright; and an array as a field.

None of them is trained or saved, so none is a `Volume`.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from ..geometry.grids import voxel_centres
from ..kernels.block_absorption import Blocks
from .base import Field, grid_words
from .occupancy import Occupancy, occupied_cells
from .resampling import ask, drawn

Answer = tuple[Float[Tensor, "*P"], Float[Tensor, "*P"]]
NO_CUT = -1.0  # the plane lies before the unit ball


class FrozenField(Field):
    """A field that does not change meanwhile: its grid, or where it is empty, is found once for all its views.

    Args:
        field: nobody may change it afterwards.

    Gradients:
        None to the field's parameters through the grid.
    """

    def __init__(self, field: Field) -> None:
        self.field = field
        with torch.no_grad():
            self._blocks = field.blocks()
            self._grid = field.dense() if self._blocks is None else None
        self._occupancy: Occupancy | None = None

    def __repr__(self) -> str:
        return f"FrozenField({self.field!r})"

    def __call__(self, points: Float[Tensor, "*P 3"]) -> Answer:
        """As the field."""
        return self.field(points)

    def dense(self) -> Float[Tensor, "2 Z Y X"] | None:
        """As the field, without the work; of one that is kept as blocks it is made when first asked for."""
        if self._grid is None and self._blocks is not None:
            with torch.no_grad():
                self._grid = self.field.dense()  # which refuses one that does not fit into the memory
        return self._grid

    def blocks(self) -> Blocks | None:
        """As the field, without the work."""
        return self._blocks

    def like(self) -> Tensor:
        """As the field."""
        return self.field.like()

    def occupancy(self) -> Occupancy:
        """Its `occupied_cells`, looked for when first asked."""
        if self._occupancy is None:
            self._occupancy = occupied_cells(self.field)
        return self._occupancy


class CutField(Field):
    """A field as the page's sliders want it: attenuation scaled, and nothing before a plane.

    Args:
        field: what is altered.
        scale: factor on the attenuation.
        normal: (3,), unit, world: away from the side that is taken away.
        depth: of the plane along the normal, world units; `NO_CUT` and less: nothing is taken away. In a grid the
            border is one voxel soft.
    """

    def __init__(self, field: Field, scale: float, normal: Float[Tensor, "3"], depth: float) -> None:
        self.field, self.scale, self.normal, self.depth = field, scale, normal, depth

    def __repr__(self) -> str:
        normal = tuple(round(share, 3) for share in self.normal.tolist())
        return f"CutField({self.field!r}, scale={self.scale:g}, normal={normal}, depth={self.depth:g})"

    def __call__(self, points: Float[Tensor, "*P 3"]) -> Answer:
        """The field's answer, altered."""
        attenuation, absorbance = self.field(points)
        kept = (points @ self.normal.to(points)) >= self.depth
        return torch.where(kept, attenuation * self.scale, 0.0), absorbance  # infinity times nothing is nothing

    def dense(self) -> Float[Tensor, "2 Z Y X"] | None:
        """The field's grid, altered."""
        grid = self.field.dense()
        if grid is None:
            return None
        attenuation = grid[0] * self.scale
        if self.depth > NO_CUT:
            z, y, x = (voxel_centres(n).to(grid) for n in attenuation.shape)
            across = self.normal[2] * z[:, None, None] + self.normal[1] * y[:, None] + self.normal[0] * x
            kept = ((across - self.depth) * (max(attenuation.shape) / 2.0) + 0.5).clamp_(0.0, 1.0)
            # infinite attenuation is legitimate, and infinity times nothing must be nothing
            attenuation = torch.where(kept > 0.0, attenuation * kept, 0.0)
        return torch.stack([attenuation, grid[1]])

    def like(self) -> Tensor:
        """As the field."""
        return self.field.like()


class UnabsorbedField(Field):
    """The same matter, all of it bright: its view is the share of each ray that is intercepted.

    Args:
        field: whose attenuation it takes.
    """

    def __init__(self, field: Field) -> None:
        self.field = field

    def __repr__(self) -> str:
        return f"UnabsorbedField({self.field!r})"

    def __call__(self, points: Float[Tensor, "*P 3"]) -> Answer:
        """The field's attenuation, absorbance 0."""
        attenuation, absorbance = self.field(points)
        return attenuation, torch.zeros_like(absorbance)

    def dense(self) -> Float[Tensor, "2 Z Y X"] | None:
        """The field's grid, absorbance 0."""
        grid = self.field.dense()
        return None if grid is None else torch.stack([grid[0], torch.zeros_like(grid[1])])

    def blocks(self) -> Blocks | None:
        """The field's blocks, absorbance 0."""
        blocks = self.field.blocks()
        if blocks is None:
            return None
        raw = torch.stack([blocks.raw[0], torch.full_like(blocks.raw[1], -torch.inf)])
        return replace(blocks, raw=raw, empty_absorbance=0.0)

    def like(self) -> Tensor:
        """As the field."""
        return self.field.like()


class GridField(Field):
    """An array as a field, so that the renderer can show it.

    Args:
        values: attenuation per world unit, absorbance.
    """

    def __init__(self, values: Float[Tensor, "2 Z Y X"]) -> None:
        self.values = values

    def __repr__(self) -> str:
        return f"GridField({grid_words(self, self.values.shape[1:])})"

    def __call__(self, points: Float[Tensor, "*P 3"]) -> Answer:
        """Between the voxels' centres as the renderer interpolates."""
        return ask(drawn(self.values), points)

    def dense(self) -> Float[Tensor, "2 Z Y X"]:
        """The array."""
        return self.values

    def like(self) -> Tensor:
        """The array."""
        return self.values
