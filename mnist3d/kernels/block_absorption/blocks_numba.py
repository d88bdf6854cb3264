"""The renderer of a grid of blocks for the CPU: the same function as `reference.py`, compiled by numba.

The autograd.Function around `blocks_loops.py`, what lies beside what, and the split over threads. `render_blocks`
checks the shapes and chooses the implementation. Imports numba; import it lazily.
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
from .activation import activated_beside, slopes_in_place

GROUPS = 8  # of views, whose numbers are added in order: so many threads can share them, with the same result
CORNERS = tuple(product((0, 1), repeat=3))  # (z, y, x), in the order of the loops' `sources`


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
    values = torch.stack([opacity, absorbance], dim=-1)
    grid = _grid(slots, resolution, empty_absorbance, values.dtype)
    return _Blocks.apply(values, None, rotation, grid, image_size, num_samples)  # type: ignore[return-value]


def render_raw_numba(
    raw: Float[Tensor, "2 N 8 8 8"],
    share: float,
    rotation: Float[Tensor, "B 3 3"],
    slots: Int[Tensor, "bz by bx"],
    resolution: tuple[int, int, int],
    empty_absorbance: float,
    image_size: int,
    num_samples: int,
) -> Float[Tensor, "B H W"]:
    """`render_blocks_numba` of `activated(raw, share)`, of which one copy is kept, and one more in the backward pass.

    Gradients:
        To raw and rotation, once.
    """
    grid = _grid(slots, resolution, empty_absorbance, raw.dtype)
    return _Blocks.apply(raw, share, rotation, grid, image_size, num_samples)  # type: ignore[return-value]


def block_influence_numba(
    raw: Float[Tensor, "2 N 8 8 8"],
    share: float,
    rotation: Float[Tensor, "B 3 3"],
    slots: Int[Tensor, "bz by bx"],
    resolution: tuple[int, int, int],
    empty_absorbance: float,
    image_size: int,
    num_samples: int,
) -> Float[Tensor, " N"]:
    """See `block_influence`; takes the share of `activated`. Bit-equal on any number of threads."""
    threads, lie = torch.get_num_threads(), slots.contiguous().numpy().astype(np.int32)
    table, sources, empty, size = _grid(slots, resolution, empty_absorbance, raw.dtype)
    values = activated_beside(raw, share).numpy().reshape(-1)
    turns = rotation.detach().double().contiguous().numpy()
    groups = spans(len(turns), GROUPS)
    squares = np.zeros((len(groups), raw.shape[1]))
    chunks = max(1, min(threads, len(groups)))

    def add(chunk: int) -> None:
        for group in range(chunk, len(groups), chunks):
            some = turns[slice(*groups[group])]
            arguments = (values, table, sources, empty, lie, size, some, num_samples, image_size)
            loops.influence(*arguments, squares[group])

    run_chunks(add, chunks)
    return torch.from_numpy(squares.sum(0) / max(1, rotation.shape[0] * image_size**2))


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, given: Tensor, share: float | None, rotation: Tensor, grid: Any, image_size: int, num_samples: int
    ) -> Tensor:
        # In Python threads of their own torch may count differently: backward must split as forward did.
        threads = torch.get_num_threads()
        values = given.contiguous() if share is None else activated_beside(given, share)
        turns = rotation.double()
        image = values.new_empty((len(turns), image_size, image_size))
        # Threads take tile rows in turn: neighbours cost alike, so all threads finish at nearly the same time.
        chunks = max(1, min(threads, len(turns) * loops.tiles_per_edge(image_size)))
        arguments = (values.detach().numpy().reshape(-1), *grid, turns.contiguous().numpy(), num_samples)
        pixels = image.numpy()
        run_chunks(lambda chunk: loops.draw(*arguments, pixels, chunk, chunks), chunks)
        ctx.save_for_backward(values, turns)
        ctx.rotation_dtype, ctx.num_samples, ctx.chunks = rotation.dtype, num_samples, chunks
        ctx.grid, ctx.share = grid, share
        return image

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        values, turns = ctx.saved_tensors
        wants_values, _, wants_rotation = ctx.needs_input_grad[:3]
        chunks = ctx.chunks
        # An array without elements tells the loops to leave that part out.
        to_values = values.new_zeros(chunks, values.numel() if wants_values else 0)
        to_turns = np.zeros((chunks, len(turns) if wants_rotation else 0, 3, 3))
        arguments = (values.numpy().reshape(-1), *ctx.grid, turns.contiguous().numpy(), ctx.num_samples)
        gradient, parts = upstream.contiguous().numpy(), to_values.numpy()
        run_chunks(
            lambda chunk: loops.draw_backward(*arguments, gradient, parts[chunk], to_turns[chunk], chunk, chunks),
            chunks,
        )
        to_given = to_rotation = None
        if wants_values:
            to_given = to_values[0]
            for part in to_values[1:]:
                to_given += part
            to_given = to_given.reshape(values.shape)
            if ctx.share is not None:
                to_given = slopes_in_place(to_given, values, ctx.share).movedim(-1, 0)
        if wants_rotation:
            to_rotation = torch.from_numpy(to_turns.sum(0)).to(ctx.rotation_dtype)
        return to_given, None, to_rotation, None, None, None


def _grid(
    slots: Tensor, resolution: tuple[int, int, int], empty_absorbance: float, dtype: torch.dtype
) -> tuple[np.ndarray, np.ndarray, np.generic, np.ndarray]:
    """What the loops read besides values: their table and sources, the absorbance of no block, (X, Y, Z).

    A cell lies in the block of its lowest corner, so there is a block of cells wherever it or one of the seven next
    to it, upwards, is there.
    """
    lie = slots.contiguous().numpy().astype(np.int32)
    there = lie >= 0
    reached = np.zeros_like(there)
    for corner in CORNERS:
        shifted = there[tuple(slice(step, None) for step in corner)]
        reached[tuple(slice(0, extent) for extent in shifted.shape)] |= shifted
    table = np.full(lie.shape, -1, np.int32)
    table[reached] = np.arange(reached.sum(), dtype=np.int32)
    above = np.pad(lie, (0, 1), constant_values=-1)
    z, y, x = np.nonzero(reached)
    sources = np.stack([above[z + dz, y + dy, x + dx] for dz, dy, dx in CORNERS], axis=1)
    nothing = torch.empty((), dtype=dtype).numpy().dtype.type(empty_absorbance)
    return table, sources, nothing, np.array(resolution[::-1])
