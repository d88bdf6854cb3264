"""What every volume owes the renderer, the trainer and its files, as one check that authors of backends run.

`check_volume`, which `mnist3d.testing` hands out. It says nothing about how good a backend is.
"""

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..geometry.grids import voxel_centres
from ..volumes import Volume
from ._asking import INSIDE, ask, check_range, hostile_points, points_inside, require, require_same, slopes, weigh
from ._volume_states import check_files, check_growth, check_moves, check_taking

LEADING = ((), (1,), (7,), (3, 4), (2, 1, 5), (0,), (2, 0))
SLOPE_TOLERANCE = 2e-2  # of a finite difference: kinks (ReLU, voxel borders) that one of the points may sit on
SLOPE_STEP = 1e-6


def check_volume(volume: Volume, dtypes: Sequence[torch.dtype] = (torch.float32, torch.float64)) -> None:
    """Check that a volume keeps the contract of `Volume`; the volume itself stays as it is.

    In turn: plain constructor arguments; no name that a method of `Volume` has; every tensor registered, so that it
    moves and is saved; shapes for any leading axes, none included, and for no points; finite values in range, also on
    the sphere, on the axes and far outside; the same answer twice, in another order and after a copy, without a change
    of state; gradients that reach every parameter, finite, and (in float64) equal to finite differences; moves to each
    of `dtypes` and to a GPU where there is one, with `like()`; saving and loading; `dense()` against `forward` at the
    voxels' centres; `grow`; `take_voxels`, where it can be made of voxels: it shows them, is saved, resumes and grows
    no more.

    Args:
        volume: as it is trained; a few hundred to some million weights.
        dtypes: that it can be moved to; leave float64 out where an extension knows single precision only.

    Raises:
        AssertionError: the contract is broken; the message says where, what was found and what to do.
    """
    require(isinstance(volume, Volume), f"{type(volume).__name__} is no subclass of mnist3d.Volume")
    name = type(volume).__name__
    _check_arguments(volume, name)
    _check_names(volume, name)
    _check_registered(volume, name)
    with torch.random.fork_rng(devices=[]):
        for dtype in dtypes:
            label = f"{name} in {str(dtype).removeprefix('torch.')}"
            moved = copy.deepcopy(volume).to(dtype)
            _check_like(moved, dtype, label)
            _check_answers(moved, label)
            _check_repeatable(moved, label)
            _check_gradients(moved, dtype, label)
            _check_dense(moved, dtype, label)
        check_moves(volume, dtypes, name)
        check_files(volume, name)
        check_growth(volume, name)
        check_taking(volume, name)


def _check_arguments(volume: Volume, name: str) -> None:
    for key, value in volume.init_args.items():
        try:
            again = json.loads(json.dumps(value))
        except (TypeError, ValueError):
            again = None if value is not None else ...
        plain = list(value) if isinstance(value, tuple) else value
        require(
            again == plain,
            f"{name}: its argument {key} is a {type(value).__name__}; a saved volume is built again from numbers, "
            "strings, booleans, None, and lists of them",
        )


def _check_names(volume: Volume, name: str) -> None:
    """A part named as a method is not found by its name, or hides the method."""
    parts = [key for kind in (volume._parameters, volume._buffers, volume._modules) for key in kind]
    plain = [key for key, value in vars(volume).items() if not callable(value)]
    for key in (*parts, *plain):
        require(
            not callable(getattr(Volume, key, None)),
            f"{name}: its {key} has the name of a method that every volume has; call it something else",
        )


def _check_registered(volume: Volume, name: str) -> None:
    """A tensor that torch does not know of stays behind on a move and is missing in the file."""
    for path, module in volume.named_modules():
        for key, value in vars(module).items():
            if key in ("_parameters", "_buffers", "_modules"):
                continue
            require(
                not any(isinstance(found, Tensor) for found in _inside(value)),
                f"{name}: {f'{path}.' if path else ''}{key} is a plain tensor, which neither moves to another device "
                "nor is saved; make it a torch.nn.Parameter or a torch.nn.Buffer",
            )
    require(any(True for _ in volume.parameters()), f"{name}: has no parameters, so nothing can be sculpted")


def _inside(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _inside(item)


def _check_like(volume: Volume, dtype: torch.dtype, label: str) -> None:
    like, weight = volume.like(), next(volume.parameters())
    right = isinstance(like, Tensor) and like.dtype == dtype and like.device == weight.device
    said = f"{like.dtype} on {like.device}" if isinstance(like, Tensor) else type(like).__name__
    require(right, f"{label}: like() is {said}; it must say how the volume is asked: {dtype} on {weight.device}")


def _check_answers(volume: Volume, label: str) -> None:
    points = points_inside(volume.like())
    for leading in LEADING:
        ask(volume, points[: torch.Size(leading).numel()].reshape(*leading, 3), label)
    for where, place in hostile_points(points).items():
        ask(volume, place, f"{label}, {where}")
        slopes(volume, place, f"{label}, {where}")


def _check_repeatable(volume: Volume, label: str) -> None:
    points = points_inside(volume.like())
    before = {key: value.clone() for key, value in volume.state_dict().items()}
    first, second = (ask(volume, points, label) for _ in range(2))
    require(torch.equal(first, second), f"{label}: the same points got two different answers; nothing may be random")
    changed = [key for key, value in volume.state_dict().items() if not torch.equal(value, before[key])]
    require(not changed, f"{label}: forward changed {', '.join(changed)}; asking must leave the volume as it is")
    shaped = ask(volume, points.reshape(4, -1, 3), label).reshape(2, -1)
    require_same(shaped, first, f"{label}: points in (4, {INSIDE // 4}, 3) and the same in ({INSIDE}, 3)")
    backwards = ask(volume, points.flip(0), label).flip(1)
    require_same(backwards, first, f"{label}: points in reverse order: a point's answer must not depend on the others")
    twin = copy.deepcopy(volume)
    require_same(ask(twin, points, label), first, f"{label}: its deep copy")
    ours = {weight.data_ptr() for weight in volume.parameters()}
    shared = any(weight.data_ptr() in ours for weight in twin.parameters() if weight.numel())
    require(not shared, f"{label}: a deep copy shares weights; the trainer averages into a copy")


def _check_gradients(volume: Volume, dtype: torch.dtype, label: str) -> None:
    points = points_inside(volume.like())
    gradients = slopes(volume, points, label)
    for key, slope in gradients.items():
        require(slope is not None, f"{label}: {key} gets no gradient; use it, or make it a torch.nn.Buffer")
        zero = slope is None or not bool(slope.any())
        require(not zero, f"{label}: the gradient to {key} is exactly 0 at all of {INSIDE} points in the ball")
    if dtype != torch.float64:
        return
    generator = torch.Generator().manual_seed(2)
    for key, slope in gradients.items():
        assert slope is not None
        weight = volume.get_parameter(key)
        random = torch.randn(weight.shape, generator=generator, dtype=dtype).to(weight)
        # Along the gradient too: to a random direction it may by chance be nearly at right angles.
        along = slope * (random.norm() / slope.norm())
        for direction, words in ((random, "a random change"), (along, "its gradient")):
            expected = (slope * direction).sum().item()
            values = []
            with torch.no_grad():
                for sign in (1.0, -1.0):
                    weight.add_(sign * SLOPE_STEP * direction)
                    values.append(weigh(ask(volume, points, label)).item())
                    weight.sub_(sign * SLOPE_STEP * direction)
            difference = (values[0] - values[1]) / (2.0 * SLOPE_STEP)
            allowed = SLOPE_TOLERANCE * max(abs(difference), slope.norm().item()) + 1e-7
            require(
                abs(difference - expected) <= allowed,
                f"{label}: along {words} of {key} the answer rises by {difference:.4g}, its gradient says "
                f"{expected:.4g}",
            )


def _check_dense(volume: Volume, dtype: torch.dtype, label: str) -> None:
    grid = volume.dense()
    if grid is None:
        return
    found = f"{tuple(grid.shape)} {grid.dtype}"
    right = grid.ndim == 4 and grid.shape[0] == 2 and 0 not in grid.shape and grid.dtype == dtype
    require(right, f"{label}: dense() is {found}; it must be (2, Z, Y, X) {dtype}, none of them 0")
    require(grid.requires_grad, f"{label}: dense() is cut off from the parameters (detach, no_grad, .data)")
    for quantity, values in zip(("attenuation", "absorbance"), grid.detach(), strict=True):
        check_range(quantity, values, f"{label}, dense()")
    z, y, x = torch.meshgrid(*[voxel_centres(n) for n in grid.shape[1:]], indexing="ij")
    points = torch.stack([x, y, z], dim=-1).to(grid)
    inside = points.norm(dim=-1) <= 1.0
    if bool(inside.any()):
        with torch.no_grad():
            asked = ask(volume, points[inside], label)
        what = "dense() and forward at the voxels' centres in the ball (voxel [k, j, i] lies at x of i, y of j, z of k)"
        require_same(grid.detach()[:, inside], asked, f"{label}: {what}")
