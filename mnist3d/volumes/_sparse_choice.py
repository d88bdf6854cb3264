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


def worth_keeping(blocks: Blocks, places: np.ndarray, empty_below: float, keep_at_most: float | None) -> np.ndarray:
    """The blocks with matter and their halo, at most so many as may stay, as ascending flat places; all where there is
    no matter, as nothing could come of nothing.

    Args:
        blocks: the grid.
        places: flat, of its blocks.
        empty_below: attenuation per world unit beyond which a voxel is matter.
        keep_at_most: share of the cube's blocks, or None.
    """
    give_back()
    matter = (F.softplus(blocks.raw[0]) / blocks.voxel_step > empty_below).cpu()
    matter &= read_voxels_of(places, blocks.resolution)
    kept = within_reach(matter, places, blocks.resolution, REACH)
    most = math.prod(blocks_along(blocks.resolution))
    most = most if keep_at_most is None else max(1, int(most * keep_at_most))
    if len(kept) > most:
        return _most_seen(blocks, places, matter, most)
    return kept if len(kept) else places


def _most_seen(blocks: Blocks, places: np.ndarray, matter: Bool[Tensor, "N 8 8 8"], most: int) -> np.ndarray:
    """The blocks that change the views most, and some beside them, as ascending flat places.

    Those with the least `block_influence` are left out a few at a time, as each that goes lets others be seen. The
    views and so the choice are always the same.
    """
    shown = most - int(HALO * most)
    kept, influence = _seen(blocks, shown)
    unseen = places[(~kept & matter.flatten(1).any(dim=1)).numpy()]  # where nothing is seen nothing would grow
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


def _seen(blocks: Blocks, most: int) -> tuple[Bool[Tensor, " N"], Float[Tensor, " N"]]:
    """Which blocks stay, and the influence of each as it was found last."""
    slots = blocks.slots.long()
    kept = torch.ones(blocks.raw.shape[1], dtype=torch.bool, device=slots.device)
    influence = torch.zeros(len(kept), dtype=torch.float64, device=slots.device)
    seed = 0
    while (count := int(kept.sum())) > most:
        give_back()
        directions = sample_rotations(VIEWS, torch.Generator().manual_seed(seed), PoseOptions("sphere"))
        left = replace(blocks, slots=torch.where((slots >= 0) & kept[slots.clamp_min(0)], slots, -1).int())
        influence = block_influence(left, directions.to(blocks.raw), PIXELS, max(blocks.resolution))
        order = influence.masked_fill(~kept, -1.0).argsort(descending=True, stable=True)
        kept[order[max(most, int((1.0 - LEFT_OUT_AT_ONCE) * count)) :]] = False
        seed += 1
    return kept.cpu(), influence.cpu()
