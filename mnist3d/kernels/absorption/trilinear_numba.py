"""The fused trilinear renderer for the CPU: the same function as `reference.py`, compiled by numba.

The autograd.Function around `trilinear_loops.py`, the padded layout and the split over threads. `render_grid` checks
the shapes and chooses the implementation. Imports numba; import it lazily.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..absorption import trilinear_loops as loops
from ..numba_runtime import run_chunks, spans


def render_grid_numba(
    opacity: Float[Tensor, "Z Y X"],
    absorbance: Float[Tensor, "Z Y X"],
    rotation: Float[Tensor, "B 3 3"],
    image_size: int,
    num_samples: int,
) -> Float[Tensor, "B H W"]:
    """See `render_grid`; takes the opacity of one step instead of the attenuation.

    Runs on torch.get_num_threads() threads. Two runs with the same number of threads are bit-equal: what a
    thread works on is fixed, each adds to a gradient volume of its own, and these are summed in order.

    Raises:
        ValueError: more than 2^31 voxels (about 1290^3): a cell's index would not fit 32 bits.

    Gradients:
        To opacity, absorbance and rotation, once: the result of backward has no graph.

    Source:
        Max, "Optical models for direct volume rendering" (1995), eq. 9, differentiated by hand.
    """
    if 2 * (opacity.shape[0] + 2) * (opacity.shape[1] + 2) * (opacity.shape[2] + 2) >= 2**32:
        raise ValueError(
            f"a grid of {tuple(opacity.shape)} is too large for impl='numba' (32-bit cell indices): "
            "render it with impl='reference'"
        )
    return _Trilinear.apply(opacity, absorbance, rotation, image_size, num_samples)  # type: ignore[return-value]


class _Trilinear(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, opacity: Tensor, absorbance: Tensor, rotation: Tensor, image_size: int, num_samples: int
    ) -> Tensor:
        # In Python threads of their own torch may count differently: backward must split as forward did.
        threads = torch.get_num_threads()
        cells = _pack(opacity, absorbance, threads)
        turns = rotation.double()
        image = opacity.new_empty((len(turns), image_size, image_size))
        # Threads take tile rows in turn: neighbours cost alike, so all threads finish at nearly the same time.
        chunks = max(1, min(threads, len(turns) * loops.tiles_per_edge(image_size)))
        arguments = (cells.reshape(-1), np.array(opacity.shape[::-1]), turns.contiguous().numpy(), num_samples)
        pixels = image.numpy()
        run_chunks(lambda chunk: loops.draw(*arguments, pixels, chunk, chunks), chunks)

        # The layout is made again in backward: keeping it would cost more memory than that costs time.
        ctx.save_for_backward(opacity, absorbance, turns)
        ctx.rotation_dtype, ctx.num_samples, ctx.threads, ctx.chunks = rotation.dtype, num_samples, threads, chunks
        return image

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        opacity, absorbance, turns = ctx.saved_tensors
        wants_opacity, wants_absorbance, wants_rotation = ctx.needs_input_grad[:3]
        wants_cells = wants_opacity or wants_absorbance
        chunks, cells = ctx.chunks, _pack(opacity, absorbance, ctx.threads)
        # An array without elements tells the loops to leave that part out.
        to_cells = np.zeros((chunks, cells.size if wants_cells else 0), cells.dtype)
        to_turns = np.zeros((chunks, len(turns) if wants_rotation else 0, 3, 3))
        arguments = (cells.reshape(-1), np.array(opacity.shape[::-1]), turns.contiguous().numpy(), ctx.num_samples)
        gradient = upstream.contiguous().numpy()
        run_chunks(
            lambda chunk: loops.draw_backward(*arguments, gradient, to_cells[chunk], to_turns[chunk], chunk, chunks),
            chunks,
        )
        to_opacity = to_absorbance = to_rotation = None
        if wants_cells:
            parts = to_cells.reshape(-1, *cells.shape)
            del arguments, cells  # before as much again is allocated
            to_opacity, to_absorbance = (opacity.new_empty(opacity.shape) for _ in range(2))
            first, second = to_opacity.numpy(), to_absorbance.numpy()
            planes = spans(len(to_opacity), ctx.threads)
            run_chunks(lambda chunk: loops.unpack(parts, first, second, *planes[chunk]), len(planes))
        if wants_rotation:
            to_rotation = torch.from_numpy(to_turns.sum(0)).to(ctx.rotation_dtype)
        return to_opacity, to_absorbance, to_rotation, None, None


def _pack(opacity: Tensor, absorbance: Tensor, threads: int) -> np.ndarray:
    """The padded layout (Z + 2, Y + 2, X + 2, 2) that the loops read."""
    first, second = opacity.detach().contiguous().numpy(), absorbance.detach().contiguous().numpy()
    cells = np.empty((*(extent + 2 for extent in first.shape), 2), first.dtype)
    planes = spans(len(cells), threads)
    run_chunks(lambda chunk: loops.pack(first, second, cells, *planes[chunk]), len(planes))
    return cells
