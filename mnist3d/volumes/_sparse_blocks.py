"""Which blocks of a grid are there: their places, their neighbours, and which are worth keeping.

Whole numbers and flags; what the blocks hold is the affair of `sparse_grid`.
"""

from itertools import product

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..geometry.grids import voxel_places
from ..kernels.block_absorption import BLOCK, blocks_along

AROUND = tuple(product((-1, 0, 1), repeat=3))  # (z, y, x) of a block and the 26 around it, itself in the middle


def blocks_in_ball(size: tuple[int, ...]) -> np.ndarray:
    """The blocks of a grid that a sample in the unit ball can read, as ascending flat places, int32.

    A voxel is read up to one voxel away.
    """
    near = []
    for voxels, blocks in zip(size, blocks_along(size), strict=True):
        first = voxel_places(np.arange(blocks) * BLOCK - 1.0, voxels)
        last = voxel_places(np.minimum(np.arange(1, blocks + 1) * BLOCK, voxels).astype(float), voxels)
        near.append(np.maximum(0.0, np.maximum(first, -last)) ** 2)
    distance = near[0][:, None, None] + near[1][:, None] + near[2]
    return np.flatnonzero(distance < 1.0).astype(np.int32)


def slots_of(places: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """For each block of the grid, which of those at `places` it is, -1 for none; int32."""
    slots = np.full(int(np.prod(blocks_along(size))), -1, np.int32)
    slots[places] = np.arange(len(places), dtype=np.int32)
    return slots.reshape(blocks_along(size))


def faces_of(places: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """(6, N): which block lies before and behind each along z, then y, then x, -1 for none; int32."""
    around = np.pad(slots_of(places, size), 1, constant_values=-1)
    at = np.stack(np.unravel_index(places, blocks_along(size))) + 1
    steps = [step * np.eye(3, dtype=int)[axis] for axis in range(3) for step in (-1, 1)]
    return np.stack([around[tuple(at + step[:, None])] for step in steps])


def overlapping(places: np.ndarray, size: tuple[int, ...], finer: tuple[int, ...]) -> np.ndarray:
    """The blocks in the ball of a grid of another size that read any of these blocks' voxels, as flat places."""
    there = slots_of(places, size) >= 0
    for axis, (old, new) in enumerate(zip(size, finer, strict=True)):
        at = (voxel_places(np.arange(new), new) + 1.0) * old / 2.0 - 0.5
        reads = np.zeros((blocks_along((new,))[0], there.shape[axis]), bool)
        for voxel in (np.floor(at), np.floor(at) + 1.0):
            reads[np.arange(new) // BLOCK, np.clip(voxel, 0, old - 1).astype(int) // BLOCK] = True
        there = np.moveaxis(np.tensordot(reads, there, axes=(1, axis)), 0, axis)
    found = np.flatnonzero(there).astype(np.int32)
    return found[np.isin(found, blocks_in_ball(finer))]


def voxels_of(places: np.ndarray, size: tuple[int, ...]) -> list[Float[Tensor, "N 8"]]:
    """World coordinates z, y and x of the voxels of blocks, in double precision."""
    inside = np.arange(BLOCK)
    return [
        torch.from_numpy(voxel_places(block[:, None] * BLOCK + inside, voxels).astype(np.float64))
        for block, voxels in zip(np.unravel_index(places, blocks_along(size)), size, strict=True)
    ]


def read_voxels_of(places: np.ndarray, size: tuple[int, ...]) -> Bool[Tensor, "N 8 8 8"]:
    """Which voxels of blocks a sample in the unit ball can read; a voxel is read up to one voxel away."""
    z, y, x = (
        ((axis.abs() - 2.0 / voxels).clamp_min(0.0).square() + torch.where(axis.abs() < 1.0, 0.0, 2.0))
        for axis, voxels in zip(voxels_of(places, size), size, strict=True)
    )
    return z[:, :, None, None] + y[:, None, :, None] + x[:, None, None, :] < 1.0


def within_reach(matter: Bool[Tensor, "N 8 8 8"], places: np.ndarray, size: tuple[int, ...], reach: int) -> np.ndarray:
    """The blocks in the ball that hold matter, or have some within so many voxels, as ascending flat places.

    Args:
        matter: flags of the voxels of the blocks at `places`.
        places: flat, of the blocks.
        size: of the grid.
        reach: voxels, 1 to 8, along each axis.
    """
    near = {-1: slice(0, reach), 0: slice(0, BLOCK), 1: slice(BLOCK - reach, BLOCK)}
    blocks = blocks_along(size)
    kept = np.zeros(tuple(n + 2 for n in blocks), bool)
    k, j, i = np.unravel_index(places, blocks)
    for z, y, x in AROUND:
        holds = matter[:, near[z], near[y], near[x]].flatten(1).any(dim=1).cpu().numpy()
        kept[k[holds] + 1 + z, j[holds] + 1 + y, i[holds] + 1 + x] = True
    found = np.flatnonzero(kept[1:-1, 1:-1, 1:-1]).astype(np.int32)
    return found[np.isin(found, blocks_in_ball(size))]


def centres_of(places: np.ndarray, size: tuple[int, ...]) -> Float[Tensor, "N 8 8 8 3"]:
    """World coordinates (xyz) of the voxels of blocks, in double precision."""
    z, y, x = voxels_of(places, size)
    shape = (len(places), BLOCK, BLOCK, BLOCK)
    parts = x[:, None, None, :], y[:, None, :, None], z[:, :, None, None]
    return torch.stack([part.expand(shape) for part in parts], dim=-1)


def wrong_counts(left: dict[str, Tensor], most: tuple[int, ...]) -> str:
    """What is wrong with how many times are still to come, as a file of anybody says by name; or nothing."""
    for (name, count), largest in zip(left.items(), most, strict=True):
        if count.ndim or not 0 <= int(count) <= largest:
            return f"{name} must be a number in [0, {largest}]"
    return ""


def wrong_places(places: Tensor, size: tuple[int, ...]) -> str:
    """What is wrong with places from a file of anybody, before a place of them is read or written; or nothing."""
    blocks = int(np.prod(blocks_along(size)))
    if places.ndim != 1 or not 1 <= len(places) <= blocks or int(places.min()) < 0 or int(places.max()) >= blocks:
        return f"places must be of 1 to {blocks} blocks, each in [0, {blocks - 1}]"
    if bool((places.diff() <= 0).any()):
        return "places must be ascending"
    return ""
