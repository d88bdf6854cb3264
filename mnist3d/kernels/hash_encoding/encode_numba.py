"""The hash encoding for the CPU: the same function as `reference.py`, compiled by numba.

The autograd.Function around `encode_loops.py` and the split over threads. `hash_encode` checks the shapes and chooses
the implementation. Imports numba; import it lazily.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..numba_runtime import run_chunks, spans
from .encode_loops import loops_for
from .layout import HashLevels

_loops = lru_cache(loops_for)
POINTS_A_TASK = 4096  # fewer are not worth a thread


def hash_encode_numba(
    points: Float[Tensor, "P 3"], table: Float[Tensor, "T F"], levels: HashLevels
) -> Float[Tensor, "P LF"]:
    """See `hash_encode`.

    Runs on torch.get_num_threads() threads: forward shares out the points, the gradient to the table the levels, so
    no two threads add to the same number. The result is the same to the bit for any number of threads.

    Gradients:
        To points and table, once: the result of backward has no graph.
    """
    return _HashEncode.apply(points, table, levels)  # type: ignore[return-value]


class _HashEncode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, levels: HashLevels) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(points, table)
        ctx.levels, ctx.threads = levels, torch.get_num_threads()
        read, _, _ = _loops(levels.features_per_level)
        where, rows = points.detach().contiguous().numpy(), table.detach().contiguous().numpy()
        encoded = points.new_empty(len(points), levels.width)
        out = encoded.numpy()
        parts = _parts(len(points), ctx.threads)

        def task(chunk: int) -> None:
            begin, end = parts[chunk]
            for level in range(levels.num_levels):
                own, numbers, columns = _level(levels, level, rows)
                read(where[begin:end], own, *numbers, out[begin:end, columns])

        run_chunks(task, len(parts))
        return encoded

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        points, table = ctx.saved_tensors
        levels: HashLevels = ctx.levels
        _, add, slope = _loops(levels.features_per_level)
        where, rows = points.detach().contiguous().numpy(), table.detach().contiguous().numpy()
        gradient = upstream.contiguous().numpy()
        to_points = to_table = None
        if ctx.needs_input_grad[0]:
            to_points = torch.zeros_like(points, memory_format=torch.contiguous_format)
            slopes, parts = to_points.numpy(), _parts(len(points), ctx.threads)

            def along(chunk: int) -> None:
                begin, end = parts[chunk]
                for level in range(levels.num_levels):
                    own, numbers, columns = _level(levels, level, rows)
                    slope(where[begin:end], own, *numbers, gradient[begin:end, columns], slopes[begin:end])

            run_chunks(along, len(parts))
        if ctx.needs_input_grad[1]:
            to_table = torch.zeros_like(table, memory_format=torch.contiguous_format)
            sums, threads = to_table.numpy(), min(ctx.threads, levels.num_levels)

            def scatter(chunk: int) -> None:
                for level in range(chunk, levels.num_levels, threads):
                    own, numbers, columns = _level(levels, level, sums)
                    add(where, own, *numbers, gradient[:, columns])

            run_chunks(scatter, threads)
        return to_points, to_table, None


def _parts(points: int, threads: int) -> list[tuple[int, int]]:
    return spans(points, min(threads, points // POINTS_A_TASK + 1))


def _level(levels: HashLevels, level: int, rows: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...], slice]:
    """One level's part of a table, its numbers, and its columns of what is encoded."""
    begin, width = levels.offsets[level], levels.features_per_level
    numbers = (np.array([levels.scales[level]], rows.dtype), np.uint32(levels.resolutions[level]), levels.hashed[level])
    return rows[begin : begin + levels.sizes[level]], numbers, slice(level * width, (level + 1) * width)
