"""What blocks of a grid hold: raw values of numbers, finer ones of coarser ones, those of a grid from elsewhere."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

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
BLOCKS_AT_ONCE = 2**8  # bounds the memory of what lies between
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


def summed(
    bias: Float[Tensor, "2 1 1 1 1"], levels: Sequence[Float[Tensor, "2 N _ _ _"]], faces: Int[Tensor, "6 N"]
) -> Float[Tensor, "2 N 8 8 8"]:
    """bias + levels[-1] + sum of upsampled(level) of the others, in the memory of the result and a little more.

    Gradients:
        To the levels, as often as wanted; once in a little more than the memory of the last one's. Inside a transform
        of torch.func with the memory of all that lies between.
    """
    if torch._C._are_functorch_transforms_active():  # which know no autograd.Function like this one
        return sum((upsampled(level, faces) for level in levels[:-1]), bias + levels[-1])
    return _Summed.apply(bias, faces, *levels)  # type: ignore[return-value]


def upsampled(level: Float[Tensor, "2 N s s s"], faces: Int[Tensor, "6 N"]) -> Float[Tensor, "2 N 8 8 8"]:
    """F.interpolate(mode="trilinear") of the grid that the level's blocks are part of, an axis after the other; beside
    a block that is not there the outermost values go on.

    Args:
        level: blocks of s^3 voxels.
        faces: `faces_of` the blocks.
    """
    weights = _linear(level.shape[-1], level.device, level.dtype)
    values = level.movedim(0, -1)  # (N, z, y, x, 2): the axis that is next stands behind the blocks
    for axis in range(3):
        values = _finer(values, _beside(values, faces, axis), weights, slice(None))
    return values.movedim(1, 0)


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, bias: Tensor, faces: Tensor, *levels: Tensor) -> Tensor:  # type: ignore[override]
        raw = bias + levels[-1]
        for level in levels[:-1]:
            weights = _linear(level.shape[-1], level.device, level.dtype)
            values = level.movedim(0, -1).contiguous()
            for axis in range(2):
                beside = _beside(values, faces, axis)
                finer = values.new_empty(len(values), *values.shape[2:], BLOCK)
                for some in _parts(raw):
                    finer[some] = _finer(values, beside, weights, some)
                values = finer
            beside = _beside(values, faces, 2)
            for some in _parts(raw):
                raw[:, some] += _finer(values, beside, weights, some).movedim(1, 0)
        ctx.save_for_backward(faces)
        ctx.edges = [level.shape[-1] for level in levels[:-1]]
        return raw

    @staticmethod
    def backward(ctx: Any, to_raw: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (faces,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated once more: as autograd would
            count = faces.shape[1]
            zeros = [to_raw.new_zeros(2, count, *(edge,) * 3, requires_grad=True) for edge in (*ctx.edges, BLOCK)]
            total = sum((upsampled(level, faces) for level in zeros[:-1]), zeros[-1])
            return None, None, *torch.autograd.grad(total, zeros, to_raw, create_graph=True)
        coarser = [_coarser(to_raw, edge, faces) for edge in ctx.edges]
        return None, None, *coarser, to_raw.contiguous()


def _coarser(gradient: Float[Tensor, "2 N 8 8 8"], edge: int, faces: Tensor) -> Float[Tensor, "2 N s s s"]:
    """The transpose of `upsampled`."""
    weights = _linear(edge, gradient.device, gradient.dtype)
    values = gradient.movedim(0, 1)
    for axis in (2, 1, 0):
        inside = values.new_empty(len(values), edge, *values.shape[1:-1])
        rows, places = inside.view(len(values) * edge, -1), _beside(inside, faces, axis)
        ends = values.new_empty(len(values), 2, rows.shape[1])
        for some in _parts(gradient):
            found = weights.mT @ values[some].movedim(-1, 1).flatten(2)
            inside[some].flatten(2).copy_(found[:, 1:-1])
            ends[some] = found[:, :: edge + 1]
        rows.index_add_(0, places.flatten(), ends.flatten(0, 1))
        values = inside
    return values.movedim(-1, 0).contiguous()


def _beside(values: Float[Tensor, "N s *rest"], faces: Int[Tensor, "6 N"], axis: int) -> Int[Tensor, "N 2"]:
    """Which rows of `values.flatten(0, 1)` lie before and behind each block's along an axis."""
    count, edge = values.shape[:2]
    first = torch.arange(0, edge * count, edge, device=values.device)
    below, above = faces[2 * axis : 2 * axis + 2].long()
    below = torch.where(below < 0, first, below * edge + edge - 1)
    return torch.stack([below, torch.where(above < 0, first + edge - 1, above * edge)], dim=1)


def _finer(
    values: Float[Tensor, "N s *rest"], beside: Int[Tensor, "N 2"], weights: Float[Tensor, "8 _"], some: slice
) -> Float[Tensor, "n *rest 8"]:
    """Some of the blocks, interpolated along the axis behind the blocks, which goes to the end."""
    inside = values.flatten(2)
    ends = F.embedding(beside[some], inside.flatten(0, 1))  # rows are added to at once
    finer = weights @ torch.cat([ends[:, :1], inside[some], ends[:, 1:]], dim=1)
    return finer.unflatten(2, values.shape[2:]).movedim(1, -1)


def _parts(raw: Float[Tensor, "2 N 8 8 8"]) -> Iterator[slice]:
    return (slice(begin, begin + BLOCKS_AT_ONCE) for begin in range(0, raw.shape[1], BLOCKS_AT_ONCE))


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
