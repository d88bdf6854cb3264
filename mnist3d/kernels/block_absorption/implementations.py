"""The renderers of a grid of blocks by name, and the choice of "auto" between them."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...geometry.parts import in_parts
from ..absorption.cases import random_rotations
from ..choice import TOLERANCES, Case, Run, Twins, announce, say_once, verdict
from .activation import activated
from .layout import BLOCK
from .reference import block_influence_reference, render_blocks_reference

IMPLEMENTATIONS = ("auto", "reference", "numba")
QUANTITIES = ("image", "gradient to raw values", "gradient to rotation")
# (Z, Y, X), views, image_size, num_samples of what "auto" compares the two on; of its blocks some are not there.
SMALL = ((17, 12, 20), 2, 9, 14)
SHARE = 20 / 14  # of that grid: 2 / num_samples in voxel steps of 2 / 20
LEFT_OUT = (1, 4, 5)


def implementation(impl: str, tensors: tuple[Tensor, ...], at_once: int | None) -> Run:
    """Who renders this call, out of raw values and the share of `activated`.

    Args:
        impl: as of `render_blocks`.
        tensors: raw values and rotation.
        at_once: views of which the reference keeps its samples at a time; None: of all.

    Raises:
        ValueError: unknown `impl`, or tensors that the chosen one cannot take.
        ImportError: numba is asked for by name and cannot be imported.
    """
    name = _chosen("render_blocks", impl, tensors)
    return _numba("render_blocks") if name == "numba" else _of_raw(_parted(at_once))


def _chosen(operation: str, impl: str, tensors: tuple[Tensor, ...]) -> str:
    """The name of one of the two; arguments and errors as of `implementation`, and what it is called."""
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl={impl!r}: must be one of {', '.join(IMPLEMENTATIONS)}")
    obstacle = _obstacle(tensors)
    if impl == "auto":
        impl = _automatic(operation, tensors, obstacle)
    elif impl == "numba" and obstacle:
        raise ValueError(f"impl='numba' cannot take {obstacle}: tensors must be float32 or float64, on the CPU")
    return impl


def influence_implementation(impl: str, tensors: tuple[Tensor, ...]) -> Run:
    """Who computes `block_influence`; arguments and errors as of `implementation`."""
    name = _chosen("block_influence", impl, tensors)
    return _numba("block_influence") if name == "numba" else _of_raw(block_influence_reference)


def _of_raw(run: Run) -> Run:
    """Of raw values and a share what is of opacity and absorbance."""
    return lambda raw, share, *rest: run(*activated(raw, share), *rest)


def cases() -> Iterator[Case]:
    """One, always the same; torch's own random numbers are not touched."""
    generator = torch.Generator().manual_seed(0)
    size, views, *rest = SMALL
    slots = torch.arange(1, 1 + torch.Size(-(-n // BLOCK) for n in size).numel(), dtype=torch.int32)
    slots[torch.tensor(LEFT_OUT)] = 0
    kept = slots > 0
    slots[kept] = torch.arange(int(kept.sum()), dtype=torch.int32) + 1
    slots = (slots - 1).reshape(*(-(-n // BLOCK) for n in size))
    raw = torch.randn(2, int(kept.sum()), BLOCK, BLOCK, BLOCK, generator=generator, dtype=torch.float64)
    grid = (slots, size, 0.25)
    yield Case("a few blocks", (raw, random_rotations(views, generator)), (SHARE, *grid, *rest))


def _automatic(operation: str, tensors: tuple[Tensor, ...], obstacle: str | None) -> str:
    """The reference, or numba where it can take the tensors and has proven itself."""
    what, like = f"{operation}: impl='auto'", tensors[0]
    if obstacle is None:
        try:
            from .. import numba_runtime  # noqa: F401 - the first of our modules to import numba
        except Exception as error:  # of a NumPy it does not know, a lost library
            obstacle = f"numba cannot be imported ({' '.join(str(error).split())})"
    if obstacle is not None:
        say_once(f"{what} takes the reference: {obstacle}")
        return "reference"
    differentiable = operation == "render_blocks" and torch.is_grad_enabled()
    gradients = differentiable and any(tensor.requires_grad for tensor in tensors)
    pair = partial(twins, operation, like.dtype)
    found = verdict(operation, "numba", pair, like.device, like.dtype, gradients=gradients)
    announce(what, "numba", "the reference", found)
    return "numba" if found.taken else "reference"


def twins(operation: str, dtype: torch.dtype) -> Twins:
    """The two as a call runs them, to be compared."""
    reference = block_influence_reference if operation == "block_influence" else render_blocks_reference
    fast, plain = _share_behind(_numba(operation)), _share_behind(_of_raw(reference))
    return Twins(fast, plain, cases, QUANTITIES, TOLERANCES[dtype])


def _share_behind(run: Run) -> Run:
    """With the share behind what gradients go to."""
    return lambda raw, rotation, share, *rest: run(raw, share, rotation, *rest)


def _parted(at_once: int | None) -> Run:
    """The reference, of which all that lies between two operations is kept, a few views at a time."""
    if at_once is None:
        return render_blocks_reference

    def in_few(opacity: Tensor, absorbance: Tensor, rotation: Tensor, *rest: Any) -> Tensor:
        render = render_blocks_reference
        (views,) = in_parts(lambda turns: (render(opacity, absorbance, turns, *rest),), at_once, rotation)
        return views

    return in_few


def _obstacle(tensors: tuple[Tensor, ...]) -> str | None:
    """Which tensor numba cannot take, or None."""
    for name, tensor in zip(("raw", "rotation"), tensors, strict=True):
        if tensor.device.type != "cpu":
            return f"{name} on {tensor.device}"
        if tensor.dtype != tensors[0].dtype or tensor.dtype not in TOLERANCES:
            return f"{name} of {tensor.dtype} (raw is {tensors[0].dtype})"
    return None


def _numba(operation: str) -> Run:
    try:
        from .blocks_numba import block_influence_numba, render_raw_numba
    except Exception as error:  # as above
        raise ImportError(f"impl='numba' cannot import numba ({error}): pip install numba") from error
    return block_influence_numba if operation == "block_influence" else render_raw_numba
