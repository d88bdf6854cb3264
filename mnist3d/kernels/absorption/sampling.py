"""Trilinear samples of one grid in many views, with a gradient that adds up in one order where that is asked for."""

from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# Kinds of device where the gradient of torch's grid_sample adds to a voxel in any order.
IN_ANY_ORDER = frozenset({"cuda"})


def sample_grid(grid: Float[Tensor, "C ..."], places: Float[Tensor, "B *P D"]) -> Float[Tensor, "B C *P"]:
    """The grid at places in [-1, 1]^D, linear along each axis between voxel centres; beyond them its values go on.

    Args:
        grid: (C, Z, Y, X), or a plane (C, Y, X), D = 2; any size, no empty axis.
        places: xyz or xy, of one view or more; of D axes too.

    Gradients:
        To both. With torch's deterministic algorithms (`torch.use_deterministic_algorithms`) two runs agree to the bit
        on a GPU too; it takes longer and more memory there.
    """
    if places.device.type in IN_ANY_ORDER and torch.are_deterministic_algorithms_enabled():
        return sample_in_order(grid, places)
    # grid_sample's last axis is (x, y, z) and its input (Z, Y, X): the project's own two conventions.
    shared = grid[None].expand(len(places), *grid.shape)
    return F.grid_sample(shared, places, mode="bilinear", padding_mode="border", align_corners=False)


def sample_in_order(grid: Float[Tensor, "C ..."], places: Float[Tensor, "B *P D"]) -> Float[Tensor, "B C *P"]:
    """See `sample_grid`: corner by corner of the cell around each place, which torch can add up in one order."""
    table = grid.flatten(1).mT.contiguous()
    axes = [corners(*axis) for axis in zip(places.unbind(dim=-1), grid.shape[:0:-1], strict=True)]
    sampled = table.new_zeros(*places.shape[:-1], len(grid))
    for corner in product(*axes):
        row, share = corner[-1][0], corner[0][1]
        for extent, (index, _) in zip(grid.shape[2:], corner[-2::-1], strict=True):
            row = row * extent + index
        for _, weight in corner[1:]:
            share = share * weight
        # torch sorts what reads the same row before it adds; an embedding also takes indices of 32 bits
        sampled = sampled + share[..., None] * F.embedding(row, table)
    return sampled.movedim(-1, 1)


def corners(place: Tensor, extent: int) -> list[tuple[Tensor, Tensor]]:
    """Of one axis: the two voxels around each place, and the weights of their values."""
    at = (((place + 1.0) * extent - 1.0) / 2.0).clamp(0.0, extent - 1.0)
    below = at.detach().nan_to_num(0.0).floor()  # no index may lie outside
    above = at - below
    index = below.int()
    return [(index, 1.0 - above), ((index + 1).clamp_max(extent - 1), above)]
