"""Which blocks of a grid stay: those with matter and their halo, and of too many those that the views would miss most.

What a block begins with is the affair of `sparse_grid`.
"""

import math
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ..geometry.rotations import PoseOptions, sample_rotations
from ..kernels.block_absorption import Blocks, block_influence, blocks_along
from ..storage.memory import give_back
from ._sparse_blocks import AROUND, read_voxels_of, within_reach

REACH = 4  # voxels: blocks that have matter within so many stay, so that it can grow into them
VIEWS, PIXELS = 48, 64  # from all sides, which show what a block is worth
LEFT_OUT_AT_ONCE = 0.15  # of the blocks: two that hide each other's like must not go together
HALO = 0.1  # of those that stay: beside matter, whatever they show, so that it can grow where it is seen most


def may_stay(size: tuple[int, ...], keep_at_most: float | None) -> int:
    """How many blocks of a grid stay at most.

    Args:
        size: voxels, (Z, Y, X).
        keep_at_most: share of the cube's blocks, or None: all of them.
    """
    whole = math.prod(blocks_along(size))
    return whole if keep_at_most is None else max(1, int(whole * keep_at_most))


def matter_of(blocks: Blocks, places: np.ndarray, empty_below: float) -> Bool[Tensor, "N 8 8 8"]:
    """Which voxels of the blocks hold matter that a sample in the unit ball can read; on the CPU.

    Args:
        blocks: the grid.
        places: flat, of its blocks.
        empty_below: attenuation per world unit beyond which a voxel is matter.
    """
    matter = (F.softplus(blocks.raw[0]) / blocks.voxel_step > empty_below).cpu()
    return matter & read_voxels_of(places, blocks.resolution)


def worth_keeping(
    blocks: Blocks, places: np.ndarray, matter: Bool[Tensor, "N 8 8 8"], keep_at_most: float | None
) -> np.ndarray:
    """The blocks with matter and their halo, at most so many as may stay, as ascending flat places. Where there is no
    matter, those that are there, at most so many, as nothing could come of nothing.

    Args:
        blocks: the grid.
        places: flat, of its blocks.
        matter: of its voxels; on the CPU.
        keep_at_most: share of the cube's blocks, or None.
    """
    give_back()
    kept = within_reach(matter, places, blocks.resolution, REACH)
    kept = kept if len(kept) else places
    most = may_stay(blocks.resolution, keep_at_most)
    return _most_seen(blocks, places, matter, most) if len(kept) > most else kept


def _most_seen(blocks: Blocks, places: np.ndarray, matter: Bool[Tensor, "N 8 8 8"], most: int) -> np.ndarray:
    """The blocks with matter that change the views most, and some beside them, as ascending flat places.

    Those with the least `block_influence` are left out a few at a time, as each that goes lets others be seen. The
    views and so the choice are always the same. Where no block has matter, all are ranked and none lies beside them.
    """
    holds = matter.flatten(1).any(dim=1)
    if not bool(holds.any()):
        kept, _ = _seen(blocks, torch.ones_like(holds), most)
        return places[kept.numpy()]
    kept, influence = _seen(blocks, holds, most - int(HALO * most))
    unseen = places[(~kept & holds).numpy()]  # where nothing is seen nothing would grow
    matter, places, influence = matter[kept], places[kept.numpy()], influence[kept].numpy()
    near = within_reach(matter, places, blocks.resolution, REACH)
    beside = near[~np.isin(near, np.concatenate([places, unseen]))]
    along = blocks_along(blocks.resolution)
    grid = np.zeros(tuple(n + 2 for n in along))
    grid[tuple(at + 1 for at in np.unravel_index(places, along))] = influence
    k, j, i = (at + 1 for at in np.unravel_index(beside, along))
    around = np.max([grid[k + z, j + y, i + x] for z, y, x in AROUND], axis=0, initial=0.0)
    chosen = beside[np.argsort(-around, kind="stable")[: most - len(places)]]
    return np.sort(np.concatenate([places, chosen])).astype(np.int32)


def _seen(blocks: Blocks, ranked: Bool[Tensor, " N"], most: int) -> tuple[Bool[Tensor, " N"], Float[Tensor, " N"]]:
    """Which blocks stay, and the influence of each as it was found last.

    Args:
        blocks: the grid.
        ranked: which blocks may stay. The samples in another one read the matter next to it, so it would be credited
            with what its neighbour shows.
        most: of those that stay.
    """
    slots = blocks.slots.long()
    kept = ranked.to(slots.device, copy=True)
    seed = 0
    while True:
        give_back()
        directions = sample_rotations(VIEWS, torch.Generator().manual_seed(seed), PoseOptions("sphere"))
        left = replace(blocks, slots=torch.where((slots >= 0) & kept[slots.clamp_min(0)], slots, -1).int())
        influence = block_influence(left, directions.to(blocks.raw), PIXELS, max(blocks.resolution))
        order = influence.masked_fill(~kept, -1.0).argsort(descending=True, stable=True)
        kept[order[max(most, int((1.0 - LEFT_OUT_AT_ONCE) * int(kept.sum()))) :]] = False
        if int(kept.sum()) <= most:
            return kept.cpu(), influence.cpu()
        seed += 1
