"""How the check of volumes asks one, and what any answer must be.

Points, the question, and the requirements on every answer.
"""

import torch
from torch import Tensor

from ..volumes import Volume

INSIDE = 512  # points in the ball
# Relative to the largest value. Same numbers in another order of summation, or in float32 and float64: float32's
# rounding (6e-8) times what a field amplifies it by. A wrong axis, step or activation is 1e-2 or more.
SAME_TOLERANCE = 1e-3


def require(condition: bool, message: str) -> None:
    """Raise AssertionError with the message unless the condition holds; not `assert`, which -O leaves out."""
    if not condition:
        raise AssertionError(message)


def points_inside(like: Tensor) -> Tensor:
    """Inside the unit ball, the same every time; on the device and in the precision of a tensor."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(INSIDE, 3, generator=generator, dtype=torch.float64)
    radius = torch.rand(INSIDE, 1, generator=generator, dtype=torch.float64) ** (1 / 3)
    return (0.999 * radius * points / points.norm(dim=1, keepdim=True)).to(like)


def hostile_points(like: Tensor) -> dict[str, Tensor]:
    """Where a formula may divide by zero or leave its range."""
    on_sphere = torch.nn.functional.normalize(points_inside(torch.zeros((), dtype=torch.float64))[:32], dim=1)
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


def ask(volume: Volume, points: Tensor, label: str) -> Tensor:
    """Attenuation and absorbance as one tensor, (2, ...), with shape, dtype, device and range checked."""
    label = f"{label}, forward of points {tuple(points.shape)}"
    try:
        answer = volume(points)
    except Exception as error:
        raise AssertionError(f"{label}: raised {type(error).__name__}: {error}") from error
    pair = isinstance(answer, tuple | list) and len(answer) == 2 and all(isinstance(part, Tensor) for part in answer)
    require(pair, f"{label}: returned {type(answer).__name__}; it must return (attenuation, absorbance)")
    for quantity, values in zip(("attenuation", "absorbance"), answer, strict=True):
        found = f"{label}: {quantity} is {tuple(values.shape)} {values.dtype} on {values.device}"
        expected = f"{tuple(points.shape[:-1])} {points.dtype} on {points.device}"
        same = values.shape == points.shape[:-1] and values.dtype == points.dtype and values.device == points.device
        require(same, f"{found}; it must be {expected}")
        check_range(quantity, values, label)
    return torch.stack(tuple(answer))


def check_range(quantity: str, values: Tensor, label: str) -> None:
    """Finite; attenuation >= 0, absorbance in [0, 1]."""
    require(bool(values.isfinite().all()), f"{label}: {quantity} is not finite")
    if values.numel():
        low, high = values.min().item(), values.max().item()
        wanted = "in [0, 1]" if quantity == "absorbance" else ">= 0"
        in_range = low >= 0.0 and (quantity == "attenuation" or high <= 1.0)
        require(in_range, f"{label}: {quantity} lies in [{low:.4g}, {high:.4g}]; it must be {wanted}")


def require_same(found: Tensor, expected: Tensor, label: str, tolerance: float = SAME_TOLERANCE) -> None:
    """Both channels equal but for a tolerance, relative to the largest value."""
    for quantity, ours, theirs in zip(("attenuation", "absorbance"), found.detach(), expected.detach(), strict=True):
        error = (ours.double() - theirs.double()).abs().max().item()
        allowed = tolerance * max(theirs.abs().max().item(), 1e-6)
        require(error <= allowed, f"{label}: {quantity} differs by {error:.3g}, it must be <= {allowed:.3g}")


def weigh(answer: Tensor) -> Tensor:
    """A number that every answer has a part in."""
    weights = torch.randn(2, answer[0].numel(), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = weights.to(answer)
    return (weights[0] * answer[0].flatten()).sum() + (weights[1] * answer[1].flatten()).sum()


def slopes(volume: Volume, points: Tensor, label: str) -> dict[str, Tensor | None]:
    """Gradients to every parameter, finite where there are any."""
    named = {key: weight for key, weight in volume.named_parameters() if weight.requires_grad}
    require(bool(named), f"{label}: no parameter requires a gradient")
    value = weigh(ask(volume, points, label))
    require(value.requires_grad, f"{label}: the answer is cut off from the parameters (detach, no_grad, .data)")
    found = torch.autograd.grad(value, list(named.values()), allow_unused=True)
    for key, slope in zip(named, found, strict=True):
        finite = slope is None or bool(slope.isfinite().all())
        require(finite, f"{label}: the gradient to {key} is not finite")
    return dict(zip(named, found, strict=True))
