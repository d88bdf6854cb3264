# type: ignore - Warp reads these functions as its own language, of which Python's type checkers know nothing.
"""The trilinear renderer as one would write it in NVIDIA Warp (`pip install warp-lang`), forward and backward by hand.

Warp's own adjoint of a loop of unknown length does not keep what the loop carries (here the transmittance), so
the backward pass is a second kernel. It divides by 1 - opacity, which the benchmark's volumes allow.
"""

from typing import Any

import torch
import warp as wp
from torch import Tensor

wp.config.log_level = 30  # warnings: no banner into the table
wp.init()


@wp.func
def _cell(position: float, extent: int) -> wp.vec2:
    """Lower voxel and fraction of one coordinate in [-1, 1], its border repeated."""
    at = wp.clamp((position + 1.0) * 0.5 * float(extent) - 0.5, 0.0, float(extent - 1))
    low = wp.min(wp.floor(at), float(wp.max(extent - 2, 0)))
    return wp.vec2(low, at - low)


@wp.func
def _read(grid: wp.array3d(dtype=wp.vec2), x: wp.vec2, y: wp.vec2, z: wp.vec2) -> wp.vec2:
    i, j, k = int(x[0]), int(y[0]), int(z[0])
    total = wp.vec2(0.0, 0.0)
    for corner in range(8):
        a, b, c = corner & 1, (corner >> 1) & 1, (corner >> 2) & 1
        weight = wp.where(a == 1, x[1], 1.0 - x[1]) * wp.where(b == 1, y[1], 1.0 - y[1])
        weight *= wp.where(c == 1, z[1], 1.0 - z[1])
        total += weight * grid[k + c, j + b, i + a]
    return total


@wp.func
def _spread(
    grid: wp.array3d(dtype=wp.vec2),
    x: wp.vec2,
    y: wp.vec2,
    z: wp.vec2,
    value: wp.vec2,
):
    i, j, k = int(x[0]), int(y[0]), int(z[0])
    for corner in range(8):
        a, b, c = corner & 1, (corner >> 1) & 1, (corner >> 2) & 1
        weight = wp.where(a == 1, x[1], 1.0 - x[1]) * wp.where(b == 1, y[1], 1.0 - y[1])
        weight *= wp.where(c == 1, z[1], 1.0 - z[1])
        wp.atomic_add(grid, k + c, j + b, i + a, weight * value)


@wp.kernel
def _draw(
    grid: wp.array3d(dtype=wp.vec2),
    turns: wp.array(dtype=wp.mat33),
    samples: int,
    image: wp.array3d(dtype=float),
    upstream: wp.array3d(dtype=float),
    gradient: wp.array3d(dtype=wp.vec2),
    backward: int,
):
    view, row, column = wp.tid()
    size = float(image.shape[1])
    u, v = (2.0 * float(column) + 1.0) / size - 1.0, (2.0 * float(row) + 1.0) / size - 1.0
    half = wp.sqrt(wp.max(1.0 - u * u - v * v, 0.0))
    passed, light = float(1.0), float(0.0)  # noqa: UP018 - a loop changes them, so Warp wants no constants
    total = image[view, row, column]
    for k in range(samples):
        near = wp.max(2.0 * float(k) / float(samples) - 1.0, -half)
        far = wp.min(2.0 * float(k + 1) / float(samples) - 1.0, half)
        share = (far - near) * float(samples) * 0.5
        if share > 0.0:
            point = wp.transpose(turns[view]) * wp.vec3(u, v, 0.5 * (near + far))
            x = _cell(point[0], grid.shape[2])
            y = _cell(point[1], grid.shape[1])
            z = _cell(point[2], grid.shape[0])
            value = _read(grid, x, y, z)
            opacity, colour = share * value[0], 1.0 - value[1]
            light += passed * opacity * colour
            if backward == 1:
                g = upstream[view, row, column]
                behind = (total - light) / wp.max(1.0 - opacity, 1.0e-6)
                _spread(gradient, x, y, z, wp.vec2(g * share * (passed * colour - behind), -g * passed * opacity))
            passed *= 1.0 - opacity
    if backward == 0:
        image[view, row, column] = light


class _Warp(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, opacity: Tensor, absorbance: Tensor, rotation: Tensor, size: int, samples: int
    ) -> Tensor:
        grid = torch.stack([opacity, absorbance], dim=-1).contiguous()
        image = opacity.new_zeros(len(rotation), size, size)
        _Warp.launch(grid, rotation, samples, image, image, grid, 0)
        ctx.save_for_backward(grid, rotation, image)
        ctx.samples = samples
        return image

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        grid, rotation, image = ctx.saved_tensors
        gradient = torch.zeros_like(grid)
        _Warp.launch(grid, rotation, ctx.samples, image, upstream.contiguous(), gradient, 1)
        return gradient[..., 0], gradient[..., 1], None, None, None

    @staticmethod
    def launch(
        grid: Tensor, turns: Tensor, samples: int, image: Tensor, upstream: Tensor, gradient: Tensor, backward: int
    ) -> None:
        pairs, matrices = (
            wp.from_torch(t.detach().contiguous(), dtype=d) for t, d in ((grid, wp.vec2), (turns, wp.mat33))
        )
        images = [wp.from_torch(t.detach()) for t in (image, upstream)]
        wp.launch(
            _draw,
            dim=tuple(image.shape),
            inputs=[pairs, matrices, samples, *images, wp.from_torch(gradient, dtype=wp.vec2), backward],
            device="cpu",
        )


def warp_trilinear(attenuation: Tensor, absorbance: Tensor, rotation: Tensor, size: int, samples: int) -> Tensor:
    """The same samples as the reference's, in one kernel for each direction."""
    opacity = -torch.expm1(-attenuation * (2.0 / samples))
    return _Warp.apply(opacity, absorbance, rotation, size, samples)  # type: ignore[return-value]
