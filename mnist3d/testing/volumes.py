"""What every volume owes the renderer, the trainer and its files, as one check that authors of backends run.

What it is: `check_volume`, which `mnist3d.testing` hands out. What it is not: no judge of how good a backend is.
"""

import copy
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..volumes import Volume, load_volume, volume_bytes

LEADING = ((), (1,), (7,), (3, 4), (2, 1, 5), (0,), (2, 0))
INSIDE = 512  # points in the ball
# Relative to the largest value. Same numbers in another order of summation, or in float32 and float64: float32's
# rounding (6e-8) times what a field amplifies it by. A wrong axis, step or activation is 1e-2 or more.
SAME_TOLERANCE = 1e-3
SLOPE_TOLERANCE = 2e-2  # of a finite difference: kinks (ReLU, voxel borders) that one of the points may sit on
SLOPE_STEP = 1e-6


def check_volume(volume: Volume, dtypes: Sequence[torch.dtype] = (torch.float32, torch.float64)) -> None:
    """Check that a volume keeps the contract of `Volume`; the volume itself stays as it is.

    In turn: plain constructor arguments; every tensor registered, so that it moves and is saved; shapes for any
    leading axes, none included, and for no points; finite values in range, also on the sphere, on the axes and far
    outside; the same answer twice, in another order and after a copy, without a change of state; gradients that
    reach every parameter, finite, and (in float64) equal to finite differences; moves to each of `dtypes` and to
    a GPU where there is one; saving and loading; `dense()` against `forward` at the voxels' centres; `grow`.

    Args:
        volume: as it is trained; a few hundred to some million weights.
        dtypes: that it can be moved to; leave float64 out where an extension knows single precision only.

    Raises:
        AssertionError: the contract is broken; the message says where, what was found and what to do.
    """
    _require(isinstance(volume, Volume), f"{type(volume).__name__} is no subclass of mnist3d.Volume")
    name = type(volume).__name__
    _check_arguments(volume, name)
    _check_registered(volume, name)
    with torch.random.fork_rng(devices=[]):
        for dtype in dtypes:
            label = f"{name} in {str(dtype).removeprefix('torch.')}"
            moved = copy.deepcopy(volume).to(dtype)
            _check_answers(moved, dtype, label)
            _check_repeatable(moved, dtype, label)
            _check_gradients(moved, dtype, label)
            _check_dense(moved, dtype, label)
        _check_moves(volume, dtypes, name)
        _check_files(volume, name)
        _check_growth(volume, name)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _check_arguments(volume: Volume, name: str) -> None:
    for key, value in volume.init_args.items():
        try:
            again = json.loads(json.dumps(value))
        except (TypeError, ValueError):
            again = None if value is not None else ...
        plain = list(value) if isinstance(value, tuple) else value
        _require(
            again == plain,
            f"{name}: its argument {key} is a {type(value).__name__}; a saved volume is built again from numbers, "
            "strings, booleans, None, and lists of them",
        )


def _check_registered(volume: Volume, name: str) -> None:
    """A tensor that torch does not know of stays behind on a move and is missing in the file."""
    for path, module in volume.named_modules():
        for key, value in vars(module).items():
            if key in ("_parameters", "_buffers", "_modules"):
                continue
            _require(
                not any(isinstance(found, Tensor) for found in _inside(value)),
                f"{name}: {f'{path}.' if path else ''}{key} is a plain tensor, which neither moves to another device "
                "nor is saved; make it a torch.nn.Parameter or a torch.nn.Buffer",
            )
    _require(any(True for _ in volume.parameters()), f"{name}: has no parameters, so nothing can be sculpted")


def _inside(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _inside(item)


def _points(like: Tensor) -> Tensor:
    """Inside the unit ball, the same every time; on the device and in the precision of a tensor."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(INSIDE, 3, generator=generator, dtype=torch.float64)
    radius = torch.rand(INSIDE, 1, generator=generator, dtype=torch.float64) ** (1 / 3)
    return (0.999 * radius * points / points.norm(dim=1, keepdim=True)).to(like)


def _weight(volume: Volume) -> Tensor:
    """A parameter that says where and in which precision the volume is asked."""
    return next((weight for weight in volume.parameters() if weight.is_floating_point()), torch.zeros(()))


def _hostile_points(like: Tensor) -> dict[str, Tensor]:
    on_sphere = torch.nn.functional.normalize(_points(torch.zeros((), dtype=torch.float64))[:32], dim=1)
    axes = torch.cat([torch.eye(3), -torch.eye(3)])
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
    places = {
        "at the centre": torch.zeros(2, 3),
        "next to the centre": torch.full((1, 3), 1e-30),
        "on the sphere": on_sphere,
        "where the axes meet the sphere": axes,
        "at the cube's corners": corners,
        "outside the cube": 1.5 * corners,
        "far outside": 1e4 * torch.cat([axes, corners]),
    }
    return {name: place.to(like) for name, place in places.items()}


def _ask(volume: Volume, points: Tensor, label: str) -> tuple[Tensor, Tensor]:
    """The answer, with its shape, dtype, device and range checked."""
    label = f"{label}, forward of points {tuple(points.shape)}"
    try:
        answer = volume(points)
    except Exception as error:
        raise AssertionError(f"{label}: raised {type(error).__name__}: {error}") from error
    pair = isinstance(answer, tuple | list) and len(answer) == 2 and all(isinstance(part, Tensor) for part in answer)
    _require(pair, f"{label}: returned {type(answer).__name__}; it must return (attenuation, absorbance)")
    for quantity, values in zip(("attenuation", "absorbance"), answer, strict=True):
        found = f"{label}: {quantity} is {tuple(values.shape)} {values.dtype} on {values.device}"
        expected = f"{tuple(points.shape[:-1])} {points.dtype} on {points.device}"
        same = values.shape == points.shape[:-1] and values.dtype == points.dtype and values.device == points.device
        _require(same, f"{found}; it must be {expected}")
        _check_range(quantity, values, label)
    return answer[0], answer[1]


def _check_range(quantity: str, values: Tensor, label: str) -> None:
    _require(bool(values.isfinite().all()), f"{label}: {quantity} is not finite")
    if values.numel():
        low, high = values.min().item(), values.max().item()
        allowed = "[0, 1]" if quantity == "absorbance" else "values >= 0"
        in_range = low >= 0.0 and (quantity == "attenuation" or high <= 1.0)
        _require(in_range, f"{label}: {quantity} lies in [{low:.4g}, {high:.4g}]; allowed are {allowed}")


def _check_answers(volume: Volume, dtype: torch.dtype, label: str) -> None:
    points = _points(_weight(volume))
    for leading in LEADING:
        _ask(volume, points[: torch.Size(leading).numel()].reshape(*leading, 3), label)
    for where, place in _hostile_points(points).items():
        _ask(volume, place, f"{label}, {where}")
        _slopes(volume, place, f"{label}, {where}")


def _check_repeatable(volume: Volume, dtype: torch.dtype, label: str) -> None:
    points = _points(_weight(volume))
    before = {key: value.clone() for key, value in volume.state_dict().items()}
    first, second = (torch.stack(_ask(volume, points, label)) for _ in range(2))
    _require(torch.equal(first, second), f"{label}: the same points got two different answers; nothing may be random")
    changed = [key for key, value in volume.state_dict().items() if not torch.equal(value, before[key])]
    _require(not changed, f"{label}: forward changed {', '.join(changed)}; asking must leave the volume as it is")
    shaped = torch.stack(_ask(volume, points.reshape(4, -1, 3), label)).reshape(2, -1)
    _require_same(shaped, first, f"{label}: points in (4, {INSIDE // 4}, 3) and the same in ({INSIDE}, 3)")
    backwards = torch.stack(_ask(volume, points.flip(0), label)).flip(1)
    _require_same(backwards, first, f"{label}: points in reverse order: a point's answer must not depend on the others")
    twin = copy.deepcopy(volume)
    _require_same(torch.stack(_ask(twin, points, label)), first, f"{label}: its deep copy")
    ours = {weight.data_ptr() for weight in volume.parameters()}
    shared = any(weight.data_ptr() in ours for weight in twin.parameters() if weight.numel())
    _require(not shared, f"{label}: a deep copy shares weights; the trainer averages into a copy")


def _require_same(found: Tensor, expected: Tensor, label: str) -> None:
    for quantity, ours, theirs in zip(("attenuation", "absorbance"), found, expected, strict=True):
        error = (ours.double() - theirs.double()).abs().max().item()
        allowed = SAME_TOLERANCE * max(theirs.abs().max().item(), 1e-6)
        _require(error <= allowed, f"{label}: {quantity} differs by {error:.3g}, allowed is {allowed:.3g}")


def _weigh(attenuation: Tensor, absorbance: Tensor) -> Tensor:
    """A number that every answer has a part in."""
    weights = torch.randn(2, attenuation.numel(), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = weights.to(attenuation)
    return (weights[0] * attenuation.flatten()).sum() + (weights[1] * absorbance.flatten()).sum()


def _slopes(volume: Volume, points: Tensor, label: str) -> dict[str, Tensor | None]:
    """Gradients to every parameter, finite where there are any."""
    named = {key: weight for key, weight in volume.named_parameters() if weight.requires_grad}
    _require(bool(named), f"{label}: no parameter requires a gradient")
    value = _weigh(*_ask(volume, points, label))
    _require(value.requires_grad, f"{label}: the answer is cut off from the parameters (detach, no_grad, .data)")
    found = torch.autograd.grad(value, list(named.values()), allow_unused=True)
    for key, slope in zip(named, found, strict=True):
        finite = slope is None or bool(slope.isfinite().all())
        _require(finite, f"{label}: the gradient to {key} is not finite")
    return dict(zip(named, found, strict=True))


def _check_gradients(volume: Volume, dtype: torch.dtype, label: str) -> None:
    points = _points(_weight(volume))
    slopes = _slopes(volume, points, label)
    for key, slope in slopes.items():
        _require(slope is not None, f"{label}: {key} gets no gradient; use it, or make it a torch.nn.Buffer")
        zero = slope is None or not bool(slope.any())
        _require(not zero, f"{label}: the gradient to {key} is exactly 0 at all of {INSIDE} points in the ball")
    if dtype != torch.float64:
        return
    generator = torch.Generator().manual_seed(2)
    for key, slope in slopes.items():
        assert slope is not None
        weight = volume.get_parameter(key)
        direction = torch.randn(weight.shape, generator=generator, dtype=dtype).to(weight)
        expected = (slope * direction).sum().item()
        values = []
        with torch.no_grad():
            for sign in (1.0, -1.0):
                weight.add_(sign * SLOPE_STEP * direction)
                values.append(_weigh(*_ask(volume, points, label)).item())
                weight.sub_(sign * SLOPE_STEP * direction)
        difference = (values[0] - values[1]) / (2.0 * SLOPE_STEP)
        allowed = SLOPE_TOLERANCE * max(abs(difference), slope.norm().item()) + 1e-7
        _require(
            abs(difference - expected) <= allowed,
            f"{label}: along a random change of {key} the answer rises by {difference:.4g}, its gradient says "
            f"{expected:.4g}",
        )


def _check_dense(volume: Volume, dtype: torch.dtype, label: str) -> None:
    grid = volume.dense()
    if grid is None:
        return
    found = f"{tuple(grid.shape)} {grid.dtype}"
    right = grid.ndim == 4 and grid.shape[0] == 2 and 0 not in grid.shape and grid.dtype == dtype
    _require(right, f"{label}: dense() is {found}; it must be (2, Z, Y, X) {dtype}, none of them 0")
    _require(grid.requires_grad, f"{label}: dense() is cut off from the parameters (detach, no_grad, .data)")
    for quantity, values in zip(("attenuation", "absorbance"), grid.detach(), strict=True):
        _check_range(quantity, values, f"{label}, dense()")
    centres = [(2.0 * torch.arange(n, dtype=dtype) + 1.0) / n - 1.0 for n in grid.shape[1:]]
    z, y, x = torch.meshgrid(*centres, indexing="ij")
    points = torch.stack([x, y, z], dim=-1).to(grid)
    inside = points.norm(dim=-1) <= 1.0
    if bool(inside.any()):
        with torch.no_grad():
            asked = torch.stack(_ask(volume, points[inside], label))
        what = "dense() and forward at the voxels' centres in the ball (voxel [k, j, i] lies at x of i, y of j, z of k)"
        _require_same(grid.detach()[:, inside], asked, f"{label}: {what}")


def _check_moves(volume: Volume, dtypes: Sequence[torch.dtype], name: str) -> None:
    twin = copy.deepcopy(volume).to(dtypes[0])
    points = _points(_weight(twin))
    expected = torch.stack(_ask(twin, points, name)).detach()
    for dtype in dtypes[1:]:
        found = torch.stack(_ask(copy.deepcopy(volume).to(dtype), points.to(dtype), name)).detach()
        _require_same(found, expected, f"{name}: moved to {dtype}")
    if torch.cuda.is_available():
        found = torch.stack(_ask(copy.deepcopy(twin).to("cuda"), points.to("cuda"), name)).detach()
        _require_same(found.to(points.device), expected, f"{name}: moved to the GPU")


def _check_files(volume: Volume, name: str) -> Volume:
    points = _points(_weight(volume))
    expected = torch.stack(_ask(volume, points, name)).detach()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.safetensors"
        try:
            path.write_bytes(volume_bytes(volume, {}))
            torch.manual_seed(12345)  # what the constructor draws must come from the file
            loaded = load_volume(path, trusted=[type(volume)]).to(points)
        except Exception as error:
            raise AssertionError(f"{name}: cannot be saved and loaded again ({error})") from error
    loaded.train(volume.training)
    found = torch.stack(_ask(loaded, points, f"{name}, saved and loaded")).detach()
    _require_same(found, expected, f"{name}: saved and loaded again; all it answers by must be in its state_dict")
    return loaded


def _check_growth(volume: Volume, name: str) -> None:
    grown = copy.deepcopy(volume)
    if not grown.grow(10**9, 1.0):
        return
    _check_files(grown, f"{name}, grown")
    fresh = copy.deepcopy(volume)
    try:
        fresh.load_state_dict(grown.state_dict())
        grown.load_state_dict(volume.state_dict())
    except Exception as error:
        raise AssertionError(
            f"{name}: grows, but its state does not load before and after that, so no run could be resumed ({error})"
        ) from error
    points = _points(_weight(volume))
    back, first = (torch.stack(_ask(each, points, name)).detach() for each in (grown, volume))
    _require_same(back, first, f"{name}: a state from before it grew, loaded again")
