"""The renderer of a grid of blocks for the CPU: the same function as `reference.py`, compiled by numba.

The autograd.Function around `blocks_loops.py`, the padded layout and the split over threads. `render_blocks` checks
the shapes and chooses the implementation. Imports numba; import it lazily.
"""

from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..block_absorption import blocks_loops as loops
from ..numba_runtime import run_chunks, spans

GROUPS = 8  # of views, whose numbers are added in order: so many threads can share them, with the same result
CORNERS = tuple(product((0, 1), repeat=3))  # (z, y, x), in the order of `blocks_loops.pack`


def render_blocks_numba(
    opacity: Float[Tensor, "N 8 8 8"],
    absorbance: Float[Tensor, "N 8 8 8"],
    rotation: Float[Tensor, "B 3 3"],
    slots: Int[Tensor, "bz by bx"],
    resolution: tuple[int, int, int],
    empty_absorbance: float,
    image_size: int,
    num_samples: int,
) -> Float[Tensor, "B H W"]:
    """See `render_blocks`; takes the opacity of one step instead of the attenuation.

    Runs on torch.get_num_threads() threads. Two runs with the same number of threads are bit-equal: what a
    thread works on is fixed, each adds to a gradient of its own, and these are summed in order.

    Gradients:
        To opacity, absorbance and rotation, once: the result of backward has no graph.

    Source:
        Max, "Optical models for direct volume rendering" (1995), eq. 9, differentiated by hand.
    """
    grid = slots.contiguous().numpy().astype(np.int32), np.array(resolution[::-1]), empty_absorbance
    return _Blocks.apply(opacity, absorbance, rotation, grid, image_size, num_samples)  # type: ignore[return-value]


def block_influence_numba(
    opacity: Float[Tensor, "N 8 8 8"],
    absorbance: Float[Tensor, "N 8 8 8"],
    rotation: Float[Tensor, "B 3 3"],
    slots: Int[Tensor, "bz by bx"],
    resolution: tuple[int, int, int],
    empty_absorbance: float,
    image_size: int,
    num_samples: int,
) -> Float[Tensor, " N"]:
    """See `block_influence`; takes the opacity of one step. Bit-equal on any number of threads."""
    threads = torch.get_num_threads()
    lie, size = slots.contiguous().numpy().astype(np.int32), np.array(resolution[::-1])
    cells, table, _ = _pack(opacity, absorbance, (lie, size, empty_absorbance), threads)
    turns = rotation.detach().double().contiguous().numpy()
    groups = spans(len(turns), GROUPS)
    squares = np.zeros((len(groups), len(opacity)))
    chunks = max(1, min(threads, len(groups)))

    def add(chunk: int) -> None:
        for group in range(chunk, len(groups), chunks):
            some = turns[slice(*groups[group])]
            loops.influence(cells.reshape(-1), table, lie, size, some, num_samples, image_size, squares[group])

    run_chunks(add, chunks)
    return torch.from_numpy(squares.sum(0) / max(1, rotation.shape[0] * image_size**2))


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, opacity: Tensor, absorbance: Tensor, rotation: Tensor, grid: Any, image_size: int, num_samples: int
    ) -> Tensor:
        # In Python threads of their own torch may count differently: backward must split as forward did.
        threads = torch.get_num_threads()
        cells, table, _ = _pack(opacity, absorbance, grid, threads)
        turns = rotation.double()
        image = opacity.new_empty((len(turns), image_size, image_size))
        # Threads take tile rows in turn: neighbours cost alike, so all threads finish at nearly the same time.
        chunks = max(1, min(threads, len(turns) * loops.tiles_per_edge(image_size)))
        arguments = (cells.reshape(-1), table, grid[1], turns.contiguous().numpy(), num_samples)
        pixels = image.numpy()
        run_chunks(lambda chunk: loops.draw(*arguments, pixels, chunk, chunks), chunks)
        # The layout is made again in backward: keeping it would cost more memory than that costs time.
        ctx.save_for_backward(opacity, absorbance, turns)
        ctx.rotation_dtype, ctx.num_samples, ctx.threads, ctx.chunks = rotation.dtype, num_samples, threads, chunks
        ctx.grid = grid
        return image

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        opacity, absorbance, turns = ctx.saved_tensors
        wants_opacity, wants_absorbance, wants_rotation = ctx.needs_input_grad[:3]
        wants_cells = wants_opacity or wants_absorbance
        chunks = ctx.chunks
        cells, table, targets = _pack(opacity, absorbance, ctx.grid, ctx.threads)
        # An array without elements tells the loops to leave that part out.
        to_cells = np.zeros((chunks, cells.size if wants_cells else 0), cells.dtype)
        to_turns = np.zeros((chunks, len(turns) if wants_rotation else 0, 3, 3))
        arguments = (cells.reshape(-1), table, ctx.grid[1], turns.contiguous().numpy(), ctx.num_samples)
        gradient = upstream.contiguous().numpy()
        run_chunks(
            lambda chunk: loops.draw_backward(*arguments, gradient, to_cells[chunk], to_turns[chunk], chunk, chunks),
            chunks,
        )
        to_opacity = to_absorbance = to_rotation = None
        if wants_cells:
            parts = to_cells.reshape(-1, *cells.shape)
            del arguments, cells  # before as much again is allocated
            to_opacity, to_absorbance = (opacity.new_zeros(opacity.shape) for _ in range(2))
            first, second = to_opacity.numpy(), to_absorbance.numpy()
            blocks = spans(len(to_opacity), ctx.threads)
            run_chunks(lambda chunk: loops.unpack(parts, targets, first, second, *blocks[chunk]), len(blocks))
        if wants_rotation:
            to_rotation = torch.from_numpy(to_turns.sum(0)).to(ctx.rotation_dtype)
        return to_opacity, to_absorbance, to_rotation, None, None, None


def _pack(opacity: Tensor, absorbance: Tensor, grid: Any, threads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the loops read: the blocks of cells, where each lies in the grid, and which of them read a block's voxels.

    A cell lies in the block of its lowest corner, so there is a block of cells wherever it or one of the seven next
    to it, upwards, is there.
    """
    slots, _, empty = grid
    there = slots >= 0
    reached = np.zeros_like(there)
    for corner in CORNERS:
        shifted = there[tuple(slice(step, None) for step in corner)]
        reached[tuple(slice(0, extent) for extent in shifted.shape)] |= shifted
    table = np.full(slots.shape, -1, np.int32)
    table[reached] = np.arange(reached.sum(), dtype=np.int32)
    above = np.pad(slots, (0, 1), constant_values=-1)
    z, y, x = np.nonzero(reached)
    sources = np.stack([above[z + dz, y + dy, x + dx] for dz, dy, dx in CORNERS], axis=1)
    below = np.pad(table, (1, 0), constant_values=-1)
    z, y, x = np.nonzero(there)
    targets = np.full((len(opacity), len(CORNERS)), -1, np.int32)
    targets[slots[there]] = np.stack([below[z + 1 - dz, y + 1 - dy, x + 1 - dx] for dz, dy, dx in CORNERS], axis=1)
    first, second = opacity.detach().contiguous().numpy(), absorbance.detach().contiguous().numpy()
    cells = np.empty((len(sources), *(loops.CELLS,) * 3, 2), first.dtype)
    parts = spans(len(cells), threads)
    nothing = first.dtype.type(empty)
    run_chunks(lambda chunk: loops.pack(first, second, sources, nothing, cells, *parts[chunk]), len(parts))
    return cells, table, targets
