"""A grid of which only some blocks are there: where each lies, and what is read between them."""

from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..absorption.sampling import corners

BLOCK = 8  # voxels along each edge of a block


@dataclass(frozen=True)
class Blocks:
    """A grid that fills [-1, 1]^3, as those of its blocks that are not empty.

        attenuation = softplus(raw[0]) / voxel_step
        absorbance  = sigmoid(raw[1])

    Args:
        raw: of the blocks that are there. What lies outside the grid is not read.
        voxel_step: in whose parts of the world attenuation is given, world units.
        slots: which of them is block (k, j, i) of the grid, -1 for none. Voxel (k, j, i) lies in block
            (k // 8, j // 8, i // 8).
        resolution: voxels of the grid along (Z, Y, X).
        empty_absorbance: of the voxels of blocks that are not there, whose attenuation is 0.
    """

    raw: Float[Tensor, "2 N 8 8 8"]
    voxel_step: float
    slots: Int[Tensor, "bz by bx"]
    resolution: tuple[int, int, int]
    empty_absorbance: float

    def values(self) -> Float[Tensor, "2 N 8 8 8"]:
        """Attenuation per world unit and absorbance of the blocks that are there, differentiable."""
        return torch.stack([F.softplus(self.raw[0]) / self.voxel_step, torch.sigmoid(self.raw[1])])

    def dense(self) -> Float[Tensor, "2 Z Y X"]:
        """The whole grid, differentiable."""
        empty = self.raw.new_tensor([0.0, self.empty_absorbance])
        return whole(self.values(), self.slots, self.resolution, empty)


def blocks_along(size: tuple[int, ...]) -> tuple[int, ...]:
    """How many blocks a grid has along each axis; the last ones may reach beyond it."""
    return tuple(-(-n // BLOCK) for n in size)


def whole(
    values: Float[Tensor, "C N 8 8 8"],
    slots: Int[Tensor, "bz by bx"],
    size: tuple[int, ...],
    empty: Float[Tensor, " C"],
) -> Float[Tensor, "C Z Y X"]:
    """The grid that the blocks are part of.

    Args:
        values: of the blocks that are there.
        slots: as of `Blocks`.
        size: (Z, Y, X).
        empty: value of each channel in the other blocks.
    """
    there = slots.flatten() >= 0
    spread = empty.to(values)[:, None, None].repeat(1, slots.numel(), BLOCK**3)
    spread = spread.index_copy(1, there.nonzero()[:, 0], values.flatten(2)[:, slots.flatten()[there].long()])
    z, y, x = slots.shape
    grid = spread.reshape(-1, z, y, x, BLOCK, BLOCK, BLOCK).permute(0, 1, 4, 2, 5, 3, 6)
    grid = grid.reshape(-1, z * BLOCK, y * BLOCK, x * BLOCK)
    return grid[:, : size[0], : size[1], : size[2]]


def cut(grid: Float[Tensor, "C Z Y X"]) -> Float[Tensor, "C N 8 8 8"]:
    """All blocks of a grid, in the order of their places; what they have beyond it is 0."""
    size = grid.shape[1:]
    z, y, x = blocks_along(tuple(size))
    missing = [edge for n, blocks in zip(reversed(size), (x, y, z), strict=True) for edge in (0, blocks * BLOCK - n)]
    parts = F.pad(grid, missing).reshape(-1, z, BLOCK, y, BLOCK, x, BLOCK)
    return parts.permute(0, 1, 3, 5, 2, 4, 6).flatten(1, 3)


def sample_blocks(
    values: Float[Tensor, "C N 8 8 8"],
    slots: Int[Tensor, "bz by bx"],
    size: tuple[int, ...],
    empty: Float[Tensor, " C"],
    places: Float[Tensor, "*P 3"],
) -> Float[Tensor, "C ..."]:
    """The grid at places, trilinear between voxel centres; beyond the outermost its values go on.

    Args:
        values: of the blocks that are there.
        slots: as of `Blocks`.
        size: (Z, Y, X).
        empty: value of each channel in the other blocks.
        places: xyz.

    Gradients:
        To values and places; a voxel's are added in one order where torch's deterministic algorithms are asked for.
    """
    table = torch.cat([values.reshape(len(values), -1), empty.to(values)[:, None]], dim=1).mT.contiguous()
    axes = [corners(*axis) for axis in zip(places.unbind(dim=-1), reversed(size), strict=True)]
    sampled = table.new_zeros(*places.shape[:-1], len(values))
    for (i, x), (j, y), (k, z) in product(*axes):
        slot = slots[k // BLOCK, j // BLOCK, i // BLOCK].long()
        inside = ((k % BLOCK) * BLOCK + j % BLOCK) * BLOCK + i % BLOCK
        row = torch.where(slot < 0, len(table) - 1, slot * BLOCK**3 + inside)
        sampled = sampled + (x * y * z)[..., None] * F.embedding(row, table)
    return sampled.movedim(-1, 0)
