"""What blocks of a grid hold: raw values of numbers, finer ones of coarser ones, those of a grid from elsewhere."""

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import VolumeFileError
from ..geometry.on_device import made_once
from ..kernels.block_absorption import BLOCK, blocks_along, cut
from ..storage.memory import check_fits
from .resampling import resampled_in_slabs

CHANNELS = 2
WHOLE_GRIDS = 3  # copies of a whole grid while it is made of blocks


def check_whole_fits(size: tuple[int, ...], like: Tensor) -> None:
    """Refuse to make a whole grid of blocks that would not fit into the memory.

    Args:
        size: voxels, (Z, Y, X).
        like: of the blocks' precision and device.

    Raises:
        VolumeFileError: it would not fit.
    """
    check_fits(
        WHOLE_GRIDS * CHANNELS * like.element_size() * math.prod(size),
        f"the whole grid of {'x'.join(map(str, size[::-1]))} voxels, of which only blocks are there, takes",
        "exact views need only the blocks; do this on a larger machine",
        VolumeFileError,
        like.device,
    )


def raw_of(
    attenuation: Float[Tensor, "..."], absorbance: Float[Tensor, "..."], step: float, most: float
) -> Float[Tensor, "2 ..."]:
    """The raw values that give attenuation and absorbance: the inverses of softplus and sigmoid, in [-most, most].

    Args:
        attenuation: per world unit.
        absorbance: [0, 1].
        step: edge of a voxel, world units.
        most: the largest.
    """
    depth = attenuation * step
    raw = torch.stack([depth + torch.log(-torch.expm1(-depth)), torch.logit(absorbance)])
    return raw.clamp(-most, most)


def upsampled(level: Float[Tensor, "2 N s s s"], faces: Int[Tensor, "6 N"]) -> Float[Tensor, "2 N 8 8 8"]:
    """F.interpolate(mode="trilinear") of the grid that the level's blocks are part of, an axis after the other; beside
    a block that is not there the outermost values go on.

    Args:
        level: blocks of s^3 voxels.
        faces: `faces_of` the blocks.
    """
    edge, count = level.shape[-1], level.shape[1]
    weights = _linear(edge, level.device, level.dtype)
    first = torch.arange(0, edge * count, edge, device=level.device)
    values = level.movedim(0, -1)  # (N, z, y, x, 2): the axis that is next stands behind the blocks
    for axis in range(3):
        below, above = faces[2 * axis : 2 * axis + 2].long()
        below = torch.where(below < 0, first, below * edge + edge - 1)
        above = torch.where(above < 0, first + edge - 1, above * edge)
        inside = values.flatten(2)
        beside = F.embedding(torch.stack([below, above], dim=1), inside.flatten(0, 1))  # rows are added to at once
        finer = weights @ torch.cat([beside[:, :1], inside, beside[:, 1:]], dim=1)
        values = finer.unflatten(2, values.shape[2:]).movedim(1, -1)
    return values.movedim(1, 0)


@made_once
def _linear(edge: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "8 _"]:
    """The matrix that interpolates a block's voxels, and one beyond each end, at the 8 of the finest level."""
    at = (torch.arange(BLOCK, dtype=dtype, device=device) + 0.5) * (edge / BLOCK) + 0.5
    return (1.0 - (at[:, None] - torch.arange(edge + 2, dtype=dtype, device=device)).abs()).clamp_min(0.0)


def layers_of(
    grid: Float[Tensor, "2 Z Y X"], size: tuple[int, ...], places: np.ndarray
) -> Iterator[Float[Tensor, "2 _ 8 8 8"]]:
    """The blocks at some places of a grid in another resolution, a layer along z at a time.

    Args:
        grid: attenuation per world unit, absorbance.
        size: (Z, Y, X) of the other resolution.
        places: flat and ascending, of blocks.
    """
    _, rows, columns = blocks_along(size)
    held: list[Tensor] = []
    begin = 0
    for slab in resampled_in_slabs(grid, size):
        for part in slab.split(1, dim=1):
            held.append(part)
            done = begin // (rows * columns) * BLOCK + len(held)
            if len(held) == BLOCK or done == size[0]:
                here = places[(places >= begin) & (places < begin + rows * columns)] - begin
                yield cut(torch.cat(held, dim=1))[:, torch.from_numpy(here).long()]
                held, begin = [], begin + rows * columns
