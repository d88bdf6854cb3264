"""The "slices" renderer for the CPU: the same function as `slices_reference.py`, compiled by numba.

The autograd.Function around `slices_loops.py`, the layouts and the split over threads. `render_grid` checks the
shapes and chooses the implementation. Imports numba; import it lazily.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..absorption import slices_layout as layout
from ..absorption import slices_loops as loops
from ..numba_runtime import run_chunks, spans
from .shear_warp import LANES, margin, shear_of


def render_slices_numba(
    attenuation: Float[Tensor, "Z Y X"],
    absorbance: Float[Tensor, "Z Y X"],
    rotation: Float[Tensor, "B 3 3"],
    image_size: int,
) -> Float[Tensor, "B H W"]:
    """See `render_grid`, quadrature="slices".

    Runs on torch.get_num_threads() threads, which share out whole views. Two runs with the same number of
    threads are bit-equal: each thread adds to a gradient volume of its own, and these are summed in order.

    Gradients:
        To attenuation, absorbance and rotation, once: the result of backward has no graph.

    Source:
        Lacroute and Levoy, "Fast volume rendering using a shear-warp factorization" (1994), differentiated
        by hand.
    """
    axis, forward, numbers = shear_of(rotation.double())
    return _Slices.apply(attenuation, absorbance, axis, forward, numbers, image_size)  # type: ignore[return-value]


class _Group(NamedTuple):
    """The views that are marched along one axis, and the layout they read."""

    views: list[int]
    order: tuple[int, int, int]
    """The grid's dimensions as (P, Q, R) of the layout."""
    along_p: bool
    """Slices run along P and rows along Q, or the other way round."""

    def geometry(self, extents: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """(slices, rows, columns); strides of a slice, of a row and of the channel; margins of rows and columns."""
        p, q, r = (extents[dimension] for dimension in self.order)
        row = 2 * (r + 1 + LANES)
        plane = (q + 2) * row
        shape, steps = ((p, q, r), (plane, row)) if self.along_p else ((q, p, r), (row, plane))
        return shape, (*steps, r + 1 + LANES), (margin(shape[1]), margin(r))


def _groups(axis: Tensor) -> Iterator[list[_Group]]:
    """Groups that share a layout. Columns run along x, but for views along x, whose columns run along y."""
    views = [[view for view, which in enumerate(axis.tolist()) if which == world] for world in range(3)]
    yield [_Group(views[2], (0, 1, 2), True), _Group(views[1], (0, 1, 2), False)]
    yield [_Group(views[0], (2, 0, 1), True)]


class _Slices(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        attenuation: Tensor,
        absorbance: Tensor,
        axis: Tensor,
        forward: Tensor,
        numbers: Tensor,
        image_size: int,
    ) -> Tensor:
        # In Python threads of their own torch may count differently: backward must split as forward did.
        threads = torch.get_num_threads()
        image = attenuation.new_empty((len(axis), image_size, image_size))
        pixels, ahead, rows = image.numpy(), forward.tolist(), numbers.contiguous().numpy()
        for groups in _groups(axis):
            _draw(groups, attenuation, absorbance, rows, ahead, pixels, threads)
        # The layouts are made again in backward: keeping both would cost more memory than time.
        ctx.save_for_backward(attenuation, absorbance, axis, numbers)
        ctx.ahead, ctx.threads = ahead, threads
        return image

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        attenuation, absorbance, axis, numbers = ctx.saved_tensors
        wants_cells = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        wants_numbers = ctx.needs_input_grad[4]
        gradient, rows = upstream.contiguous().numpy(), numbers.contiguous().numpy()
        # An array without elements tells the loops to leave that part out.
        to_numbers = np.zeros((len(axis), 7 if wants_numbers else 0))
        to_grid = [torch.zeros_like(attenuation, memory_format=torch.contiguous_format) for _ in range(2)]
        for groups in _groups(axis):
            _draw_backward(
                groups, attenuation, absorbance, rows, ctx.ahead, gradient,
                [part.numpy() for part in to_grid] if wants_cells else [], to_numbers, ctx.threads,
            )  # fmt: skip
        to_attenuation, to_absorbance = to_grid if wants_cells else (None, None)
        return to_attenuation, to_absorbance, None, None, torch.from_numpy(to_numbers) if wants_numbers else None, None


# One function call for each layout, so that its memory is free again before the next is made.
def _draw(
    groups: list[_Group],
    attenuation: Tensor,
    absorbance: Tensor,
    rows: np.ndarray,
    ahead: list[int],
    image: np.ndarray,
    threads: int,
) -> None:
    jobs = [(group.geometry(tuple(attenuation.shape)), view) for group in groups for view in group.views]
    if not jobs:
        return
    cells, runs = _pack(attenuation, absorbance, groups[0].order, threads)
    shares = spans(len(jobs), threads)

    def draw(chunk: int) -> None:
        for geometry, view in jobs[slice(*shares[chunk])]:
            loops.draw_view(cells.reshape(-1), runs, *geometry, rows[view], ahead[view], image[view])

    run_chunks(draw, len(shares))


def _draw_backward(
    groups: list[_Group],
    attenuation: Tensor,
    absorbance: Tensor,
    rows: np.ndarray,
    ahead: list[int],
    upstream: np.ndarray,
    to_grid: list[np.ndarray],
    to_numbers: np.ndarray,
    threads: int,
) -> None:
    jobs = [(group.geometry(tuple(attenuation.shape)), view) for group in groups for view in group.views]
    if not jobs:
        return
    order = groups[0].order
    cells, runs = _pack(attenuation, absorbance, order, threads)
    shares = spans(len(jobs), threads)
    to_cells = np.zeros((len(shares), *(cells.shape if to_grid else (0, 0, 0, 0))), cells.dtype)

    def draw(chunk: int) -> None:
        own = to_cells[chunk].reshape(-1)
        for geometry, view in jobs[slice(*shares[chunk])]:
            loops.draw_view_backward(
                cells.reshape(-1), runs, *geometry, rows[view], ahead[view], upstream[view], own, to_numbers[view]
            )

    run_chunks(draw, len(shares))
    if to_grid:
        first, second = (part.transpose(order) for part in to_grid)
        lines = spans(first.shape[1], threads)
        run_chunks(lambda chunk: layout.unpack(to_cells, first, second, *lines[chunk]), len(lines))


def _pack(
    attenuation: Tensor, absorbance: Tensor, order: tuple[int, int, int], threads: int
) -> tuple[np.ndarray, np.ndarray]:
    first, second = (tensor.detach().contiguous().numpy().transpose(order) for tensor in (attenuation, absorbance))
    p, q, r = first.shape
    cells = np.empty((p + 2, q + 2, 2, r + 1 + LANES), first.dtype)
    runs = np.empty(((p + 2) * (q + 2), 2), np.int64)
    lines = spans(q + 2, threads)
    run_chunks(lambda chunk: layout.pack(first, second, cells, runs, *lines[chunk]), len(lines))
    return cells, runs
