"""A grid of voxels at other places and in other numbers: the one definition of what lies between voxels' centres.

Pure functions of tensors.
"""

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..geometry.grids import WORLD_EXTENT, averaged, shares, voxel_centres

POINTS_AT_ONCE = 2**18  # bounds the memory of doubles
LEAST_TRANSMITTANCE = 1e-290  # a double is less exact below, and nothing shines through


def drawn(grid: Float[Tensor, "2 Z Y X"]) -> Float[Tensor, "3 Z Y X"]:
    """What can be interpolated as the renderer does: of one voxel step the transmittance 1 - opacity, and its optical
    depth; absorbance. In double precision, where the transmittance of matter is not yet zero."""
    attenuation, absorbance = grid.double()
    optical_depth = attenuation * (WORLD_EXTENT / max(grid.shape[1:]))
    return torch.stack([torch.exp(-optical_depth), optical_depth, absorbance])


def undrawn(values: Float[Tensor, "3 ..."], voxel_step: float) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """The inverse of `drawn`, after an interpolation: attenuation per world unit, absorbance.

    Args:
        values: transmittance, optical depth, absorbance.
        voxel_step: that `drawn` took, world units.
    """
    transmittance, optical_depth, absorbance = values
    interpolated = -torch.log(transmittance.clamp(LEAST_TRANSMITTANCE, 1.0))
    # Where nothing shines through any more the depths themselves: finite, and exact at a voxel's centre.
    depth = torch.where(transmittance > LEAST_TRANSMITTANCE, interpolated, optical_depth)
    return depth / voxel_step, absorbance


def ask(
    values: Float[Tensor, "3 Z Y X"], points: Float[Tensor, "*P 3"]
) -> tuple[Float[Tensor, "*P"], Float[Tensor, "*P"]]:
    """Attenuation per world unit and absorbance at points, in the points' precision; trilinear between the voxels'
    centres, and beyond them the outermost values go on.

    Args:
        values: `drawn` of a grid.
        points: world points, xyz.

    Gradients:
        To both.
    """
    if points.numel() == 0:
        empty = points.sum(dim=-1)
        return empty, empty
    where = points.reshape(1, 1, 1, -1, 3).to(values.dtype)
    found = F.grid_sample(values[None], where, mode="bilinear", padding_mode="border", align_corners=False)
    attenuation, absorbance = undrawn(found.reshape(3, *points.shape[:-1]), WORLD_EXTENT / max(values.shape[1:]))
    return attenuation.to(points.dtype), absorbance.to(points.dtype)


@torch.no_grad()
def resampled(grid: Float[Tensor, "2 Z Y X"], shape: tuple[int, ...]) -> Float[Tensor, "2 z y x"]:
    """A grid with another number of voxels.

    Finer: as the renderer draws it. Coarser: `averaged`, so that no light is lost.

    Args:
        grid: attenuation per world unit, absorbance.
        shape: of the result; the longest edge says whether that is finer.
    """
    return joined(resampled_in_slabs(grid, shape), grid.new_empty(2, *shape))


def joined(slabs: Iterable[Float[Tensor, "C _ Y X"]], out: Float[Tensor, "C Z Y X"]) -> Float[Tensor, "C Z Y X"]:
    """Slices along z that follow one another, copied into a grid, which is returned."""
    begin = 0
    for slab in slabs:
        out[:, begin : begin + slab.shape[1]] = slab
        begin += slab.shape[1]
    return out


def resampled_in_slabs(grid: Float[Tensor, "2 Z Y X"], shape: tuple[int, ...]) -> Iterator[Float[Tensor, "2 _ y x"]]:
    """`resampled`, some slices along z at a time, for grids that are larger than the memory.

    Gradients:
        None, if it is consumed without.
    """
    if max(shape) <= max(grid.shape[1:]):
        yield averaged(grid, [shares(old, new) for old, new in zip(grid.shape[1:], shape, strict=True)])
        return
    values = drawn(grid)
    z, y, x = (voxel_centres(n).to(values) for n in shape)
    for heights in z.split(max(1, POINTS_AT_ONCE // (shape[1] * shape[2]))):
        places = torch.meshgrid(heights, y, x, indexing="ij")
        yield torch.stack(ask(values, torch.stack(places[::-1], dim=-1))).to(grid.dtype)
