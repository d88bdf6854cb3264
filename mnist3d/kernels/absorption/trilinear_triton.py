"""The fused trilinear renderer for CUDA: the same function as `reference.py`, compiled by Triton.

The autograd.Function around `trilinear_triton_loops.py`, its layout and its launches. `render_grid` checks the shapes
and chooses the implementation. Imports triton; import it lazily.
"""

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
import triton
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..absorption import trilinear_triton_loops as loops

# Triton decides when a kernel is defined whether its interpreter is to run it (TRITON_INTERPRET=1): on the CPU, slowly.
INTERPRETED = not isinstance(loops.draw, triton.runtime.JITFunction)
MAX_IMAGE_SIZE = 2**14  # the square of its pixels' coordinates must fit 32 bits, twice


def render_grid_triton(
    opacity: Float[Tensor, "Z Y X"],
    absorbance: Float[Tensor, "Z Y X"],
    rotation: Float[Tensor, "B 3 3"],
    image_size: int,
    num_samples: int,
) -> Float[Tensor, "B H W"]:
    """See `render_grid`; takes the opacity of one step instead of the attenuation.

    Besides the gradient itself, the backward pass needs one number a pixel for every 4 samples. Two runs are
    not bit-equal: many pixels add to a voxel's gradient at once, in any order.

    Raises:
        ValueError: tensors that are not on one CUDA device (on the CPU: without Triton's interpreter), not all
            float32 or all float64, or too large for 32-bit indices (a grid of about 1022^3, 16384 pixels an edge).

    Gradients:
        To opacity, absorbance and rotation, once: the result of backward has no graph.

    Source:
        Max, "Optical models for direct volume rendering" (1995), eq. 9, differentiated by hand.
    """
    if why := obstacle(opacity, absorbance, rotation, image_size):
        raise ValueError(f"impl='triton' cannot take {why}")
    padded = F.pad(torch.stack([opacity, absorbance])[None], [1] * 6, mode="replicate")[0]
    return _Trilinear.apply(padded.permute(1, 2, 3, 0).contiguous(), rotation, image_size, num_samples)  # type: ignore[return-value]


def obstacle(opacity: Tensor, absorbance: Tensor, rotation: Tensor, image_size: int) -> str | None:
    """Why the kernel cannot render this, or None. Nothing but devices, dtypes and sizes is looked at."""
    needed = "tensors must be float32 or float64, on one CUDA device"
    for name, tensor in (("grid", opacity), ("absorbance", absorbance), ("rotation", rotation)):
        if tensor.dtype != opacity.dtype or tensor.dtype not in (torch.float32, torch.float64):
            return f"{name} of {tensor.dtype} (grid: {opacity.dtype}): {needed}"
        if tensor.device != opacity.device:
            return f"{name} on {tensor.device} (grid: {opacity.device}): {needed}"
    if opacity.device.type != "cuda" and not (INTERPRETED and opacity.device.type == "cpu"):
        return (
            f"tensors on {opacity.device}: {needed}; use impl='auto' there "
            "(or, to debug the kernel on the CPU, set TRITON_INTERPRET=1 before the first use)"
        )
    cells = 1
    for extent in opacity.shape:
        cells *= extent + 2
    if 2 * cells >= 2**31 or image_size > MAX_IMAGE_SIZE:
        return (
            f"a grid of {tuple(opacity.shape)} drawn at {image_size} pixels, which is too large for it "
            "(32-bit indices); use impl='reference'"
        )
    return None


class _Trilinear(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, cells: Tensor, rotation: Tensor, image_size: int, num_samples: int
    ) -> Tensor:
        turns = rotation.contiguous()
        keep = any(ctx.needs_input_grad[:2])
        chunks = triton.cdiv(num_samples, loops.CHUNK) if keep else 0
        image = cells.new_empty(len(turns), image_size, image_size)
        kept = cells.new_empty(len(turns), chunks, image_size, image_size)
        ctx.sizes = (image_size, num_samples, *(extent - 2 for extent in cells.shape[2::-1]))
        ctx.save_for_backward(cells, turns, kept)
        if len(turns):
            _launch(loops.draw, image, cells, turns, image, kept, *ctx.sizes, KEEP=keep)
        return image

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        cells, turns, kept = ctx.saved_tensors
        wants_cells, wants_turns = ctx.needs_input_grad[:2]
        programs = _programs(upstream)
        to_cells = torch.zeros_like(cells) if wants_cells else cells.new_empty(0)
        to_turns = cells.new_empty(programs if wants_turns else 0, 9)
        if len(turns):
            _launch(
                loops.draw_backward, upstream,
                cells, turns, kept, upstream.contiguous(), to_cells, to_turns, *ctx.sizes,
                TO_CELLS=wants_cells, TO_TURNS=wants_turns,
            )  # fmt: skip
        to_rotation = None
        if wants_turns:
            # Each program has written a row of its own: this sum is the same in every run.
            to_rotation = to_turns.reshape(len(turns), -1, 9).sum(1).reshape(-1, 3, 3) if len(turns) else turns
        return to_cells if wants_cells else None, to_rotation, None, None


def _programs(image: Tensor) -> int:
    views, height, width = image.shape
    return views * triton.cdiv(width, loops.TILE_WIDTH) * triton.cdiv(height, loops.TILE_HEIGHT)


def _launch(kernel: Any, image: Tensor, *arguments: Any, **flags: bool) -> None:
    # Triton launches on the current device, which need not be the tensors'.
    with torch.cuda.device(image.device) if image.device.type == "cuda" else contextlib.nullcontext():
        blocks = {"TILE_WIDTH": loops.TILE_WIDTH, "TILE_HEIGHT": loops.TILE_HEIGHT, "CHUNK": loops.CHUNK}
        kernel[(_programs(image),)](*arguments, **flags, **blocks)
