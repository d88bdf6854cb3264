"""Contract checks that the authors of kernels and backends import into their own tests.

They raise AssertionError with the case, the quantity, the error found and the error allowed; they return
nothing and need no test framework.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..kernels.absorption.cases import random_rotations
from ..kernels.absorption.reference import render_grid_reference
from ..kernels.choice import NEXT_TO_NOTHING, TOLERANCES

Render = Callable[[Tensor, Tensor, Tensor, int, int], Tensor]
# (Z, Y, X), views, image_size, num_samples: a cube, odd and unequal extents, fewer and more samples than voxels,
# axes of one voxel, one pixel, one sample, no view.
SIZES = (
    ((8, 8, 8), 3, 12, 8),
    ((7, 4, 9), 2, 11, 29),
    ((16, 15, 17), 1, 9, 5),
    ((1, 6, 5), 2, 7, 9),
    ((3, 1, 1), 2, 6, 4),
    ((1, 1, 1), 2, 5, 3),
    ((5, 5, 5), 1, 1, 7),
    ((4, 4, 4), 2, 8, 1),
    ((5, 6, 7), 0, 4, 3),
)


def check_absorption_kernel(
    render: Render, reference: Render = render_grid_reference, dtypes: tuple[torch.dtype, ...] = tuple(TOLERANCES)
) -> None:
    """Check that `render` is the function `reference`, with all of its gradients, on easy and hostile input.

    Every case runs `reference` in float64 and `render` in each of `dtypes`, with the same input and the same
    random upstream gradient: opacity that is random, smooth, exactly 0, exactly 1 and a mixture of all
    these; unequal, odd and single-voxel extents; an empty batch; tensors that are not contiguous; and each
    input's gradient asked for alone.

    Args:
        render: takes opacity (Z, Y, X) of one step in [0, 1], absorbance (Z, Y, X), rotation (B, 3, 3),
            image_size and num_samples; returns (B, H, W). For a kernel with another first argument (an
            attenuation, say) hand in a function that converts, and a `reference` that converts alike.
        reference: the definition, right in float64.
        dtypes: of the tensors given to `render`; keys of TOLERANCES.

    Raises:
        AssertionError: the image is off by more than TOLERANCES[dtype][0], a gradient by more than
            TOLERANCES[dtype][1] times the largest element of the reference's, or a shape or dtype is wrong.
    """
    for name, inputs, image_size, num_samples in _cases():
        expected = _view_and_gradients(reference, inputs, image_size, num_samples, torch.float64)
        for dtype in dtypes:
            label = f"{name}, {dtype}"
            found = _view_and_gradients(render, inputs, image_size, num_samples, dtype)
            _compare(label, found, expected, dtype)
    name, inputs, image_size, num_samples = next(_cases())
    expected = _view_and_gradients(reference, inputs, image_size, num_samples, torch.float64)
    for alone in range(3):
        found = _view_and_gradients(render, inputs, image_size, num_samples, dtypes[0], wanted=(alone,))
        _compare(f"{name}, only {_NAMES[alone]} requires a gradient", found, expected, dtypes[0])


_NAMES = ("opacity", "absorbance", "rotation")
_Case = tuple[str, tuple[Tensor, Tensor, Tensor], int, int]


def _cases() -> Iterator[_Case]:
    generator = torch.Generator().manual_seed(0)
    for shape, views, image_size, num_samples in SIZES:
        rotation = random_rotations(views, generator)
        for kind in ("random", "smooth", "hostile"):
            volume = _volume(kind, shape, generator)
            yield f"{kind} {shape}, {views} views", (*volume, rotation), image_size, num_samples
    shape, views, image_size, num_samples = SIZES[0]
    rotation = random_rotations(views, generator)
    absorbance = torch.rand(shape, generator=generator, dtype=torch.float64)
    for value in (0.0, 1.0):
        filled = torch.full(shape, value, dtype=torch.float64)
        yield f"opacity {value} everywhere", (filled, absorbance, rotation), image_size, num_samples
    opacity, absorbance = _volume("hostile", (2 * shape[2], shape[1], shape[0]), generator)
    sliced = (opacity[::2].permute(2, 1, 0), absorbance[::2].permute(2, 1, 0), rotation.mT)
    yield "not contiguous", sliced, image_size, num_samples


def _volume(kind: str, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    noise = torch.rand((3, *shape), generator=generator, dtype=torch.float64)
    if kind == "random":
        return noise[0], noise[1]
    if kind == "smooth":
        axes = [torch.linspace(-1.0, 1.0, extent, dtype=torch.float64) for extent in shape]
        z, y, x = torch.meshgrid(*axes, indexing="ij")
        return 0.3 * torch.exp(-3.0 * (x * x + y * y + z * z)), 0.5 + 0.5 * torch.sin(2.0 * math.pi * (x + 0.5 * y * z))
    # Whole blocks of exactly 0 and exactly 1, so that samples are too, not only voxels; noise between them.
    blocks = noise[2][::3, ::3, ::3]
    for axis, extent in enumerate(shape):
        blocks = blocks.repeat_interleave(3, dim=axis).narrow(axis, 0, extent)
    opacity = torch.where(blocks < 0.4, 0.0, torch.where(blocks > 0.7, 1.0, noise[0]))
    return opacity, noise[1].round()


def _view_and_gradients(
    render: Render,
    inputs: tuple[Tensor, Tensor, Tensor],
    image_size: int,
    num_samples: int,
    dtype: torch.dtype,
    wanted: tuple[int, ...] = (0, 1, 2),
) -> list[Tensor | None]:
    arguments = [tensor.detach().to(dtype).requires_grad_(index in wanted) for index, tensor in enumerate(inputs)]
    image = render(arguments[0], arguments[1], arguments[2], image_size, num_samples)
    generator = torch.Generator().manual_seed(1)
    # Wider than the image and cut, so that the upstream gradient is not contiguous either.
    upstream = torch.randn((len(inputs[2]), image_size, image_size + 1), generator=generator, dtype=torch.float64)
    if image.shape != upstream[..., :-1].shape or image.dtype != dtype:
        return [image.detach(), None, None, None]
    gradients = torch.autograd.grad(image, [arguments[index] for index in wanted], upstream[..., :-1].to(dtype))
    placed = dict(zip(wanted, gradients, strict=True))
    return [image.detach(), *(placed.get(index) for index in range(3))]


def _compare(label: str, found: list[Tensor | None], expected: list[Tensor | None], dtype: torch.dtype) -> None:
    tolerance = TOLERANCES[dtype]
    for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        if theirs is None:
            raise AssertionError(f"{label}: the reference itself has the wrong shape or dtype")
        quantity = "image" if index == 0 else f"gradient to {_NAMES[index - 1]}"
        if ours is None:
            continue  # not asked for, or the image has already been refused
        if ours.shape != theirs.shape or ours.dtype != dtype:
            raise AssertionError(
                f"{label}: {quantity} is {tuple(ours.shape)} {ours.dtype}, not {tuple(theirs.shape)} {dtype}"
            )
        if theirs.numel() == 0:
            continue
        # Where the whole gradient is next to nothing (opacity 1 everywhere hides a rotation), rounding is all there is.
        largest = max(theirs.abs().max().item(), NEXT_TO_NOTHING)
        allowed = tolerance.value if index == 0 else tolerance.gradient * largest
        error = (ours.double() - theirs).abs().max().item()
        if not error <= allowed:  # NaN fails too
            raise AssertionError(f"{label}: {quantity} is off by {error:.3g}, it must be <= {allowed:.3g}")
