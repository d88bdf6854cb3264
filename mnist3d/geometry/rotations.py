"""Rotations: Euler angles, turntables, and the distributions that training views are drawn from.

Pure functions of angles, or of a random generator. Every distribution is a function `(count, generator) -> rotations`
in the table `POSE_DISTRIBUTIONS`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from .arrays import ArrayOrList, as_tensor

RING_ELEVATION = 0.2  # standard deviation of the elevation of `ring`, radians: 11 degrees
TINY = 1e-12  # a density that is divided by
PoseName = Literal["euler_normal", "sphere", "ring", "so3"]


@dataclass
class PoseOptions:
    """The directions from which the volume is seen during training.

    Args:
        name: Distribution of rotations: euler_normal (azimuth and elevation normal, standard deviation 57 degrees),
            sphere (directions uniform on the sphere, camera upright), ring (azimuth uniform, elevation normal, standard
            deviation 11 degrees), so3 (uniform over all rotations, with roll).
        sphere_share: With euler_normal, share of the views of a step that is drawn from sphere instead, 0 to 1.
            Otherwise sides and rear would be rare.
    """

    name: PoseName = "euler_normal"
    sphere_share: float = 0.25

    def __post_init__(self) -> None:
        if self.name not in get_args(PoseName):
            raise ValueError(f"poses.name={self.name!r}: must be one of {', '.join(get_args(PoseName))}")
        if not 0.0 <= self.sphere_share <= 1.0:
            raise ValueError(f"poses.sphere_share={self.sphere_share}: must be in [0, 1]")

    @property
    def leaves_directions_out(self) -> bool:
        """Whether sides and rear are drawn so seldom that no weighing of the views stands for them."""
        return self.name == "euler_normal" and self.sphere_share == 0.0


def euler_matrix(angles: Float[Tensor, "..."] | ArrayOrList) -> Float[Tensor, "*B 3 3"]:
    """Rotation matrices Rx(a) Ry(b) Rz(c) of angles (a, b, c).

    With c = 0 this is an upright turntable: b turns about the vertical axis (azimuth), then a tilts (elevation).
    (a, b, 0) and (pi - a, pi + b, 0) look along the same axis, with the view turned by 180 degrees.

    Args:
        angles: (..., 3), radians: a tensor, a NumPy array, a tuple or a list.

    Returns:
        Proper orthogonal matrices; x_camera = R x_world.

    Raises:
        ValueError: the last axis is not 3 long.

    Gradients:
        To the angles.
    """
    angles = as_tensor("angles", angles)
    if angles.shape[-1:] != (3,):
        raise ValueError(f"angles have shape {tuple(angles.shape)}: the last axis must be the 3 angles (a, b, c)")
    ca, cb, cc = angles.cos().unbind(-1)
    sa, sb, sc = angles.sin().unbind(-1)
    rows = [
        torch.stack([cb * cc, -cb * sc, sb], dim=-1),
        torch.stack([ca * sc + sa * sb * cc, ca * cc - sa * sb * sc, -sa * cb], dim=-1),
        torch.stack([sa * sc - ca * sb * cc, sa * cc + ca * sb * sc, ca * cb], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def as_rotations(rotation: Tensor | ArrayOrList, like: Tensor | None = None) -> Tensor:
    """Rotations as a user has them, checked.

    Args:
        rotation: (3, 3) or (B, 3, 3). A tensor of real numbers keeps its precision.
        like: of the device they are needed on and, where they are no such tensor, the precision; default CPU, float32.

    Returns:
        (3, 3) or (B, 3, 3).

    Raises:
        ValueError: another shape, or no numbers.

    Gradients:
        To a tensor.
    """
    like = torch.zeros(()) if like is None else like
    found = as_tensor("rotation", rotation)
    shape = tuple(found.shape)
    if len(shape) not in (2, 3) or shape[-2:] != (3, 3):
        remedy = ""
        if shape[-1:] == (3,) and shape[-2:] != (3, 3):
            remedy = "; euler_matrix(angles) makes rotations of Euler angles"
        elif shape[-2:] in ((4, 4), (3, 4)):
            remedy = "; of a camera's matrix take [..., :3, :3]"
        raise ValueError(f"rotation has shape {shape}: it must be (3, 3) or (B, 3, 3){remedy}")
    kept = isinstance(rotation, Tensor) and rotation.is_floating_point()
    return found.to(like.device, found.dtype if kept else like.dtype)


def upright_matrix(
    azimuth: Float[Tensor, "*B"] | ArrayOrList, elevation: Float[Tensor, "*B"] | ArrayOrList
) -> Float[Tensor, "*B 3 3"]:
    """Rotation of an upright camera: `euler_matrix((elevation, azimuth, 0))`, radians."""
    azimuth, elevation = as_tensor("azimuth", azimuth), as_tensor("elevation", elevation)
    return euler_matrix(torch.stack([elevation, azimuth, torch.zeros_like(azimuth)], dim=-1))


def turntable(count: int, elevation: float = 0.0) -> Float[Tensor, "B 3 3"]:
    """`count` upright views around the vertical axis, evenly spaced, the first at azimuth 0.

    Args:
        count: number of views, B.
        elevation: radians.
    """
    azimuth = 2.0 * math.pi * torch.arange(count) / max(count, 1)
    return upright_matrix(azimuth, torch.full_like(azimuth, elevation))


def map_rotations(rows: int, columns: int) -> Float[Tensor, "B 3 3"]:
    """Upright views at the centres of a map's cells, row by row: north first, longitude from -180 degrees.

    Args:
        rows: of equal latitude, each pi / rows high.
        columns: of equal longitude, each 2 pi / columns wide.
    """
    elevation = math.pi / 2 - math.pi * (torch.arange(rows) + 0.5) / rows
    azimuth = -math.pi + 2.0 * math.pi * (torch.arange(columns) + 0.5) / columns
    latitude, longitude = torch.meshgrid(elevation, azimuth, indexing="ij")
    return upright_matrix(longitude.flatten(), latitude.flatten())


def _euler_normal(count: int, generator: Generator, options: PoseOptions) -> Tensor:
    angles = torch.randn(count, 3, generator=generator, device=generator.device)
    angles[:, 2] = 0.0
    return euler_matrix(angles)


def _sphere(count: int, generator: Generator, options: PoseOptions) -> Tensor:
    # Archimedes: the height of a uniform point on the sphere is uniform in [-1, 1].
    uniform = torch.rand(count, 2, generator=generator, device=generator.device)
    return upright_matrix(2.0 * math.pi * uniform[:, 0], torch.asin(2.0 * uniform[:, 1] - 1.0))


def _ring(count: int, generator: Generator, options: PoseOptions) -> Tensor:
    azimuth = 2.0 * math.pi * torch.rand(count, generator=generator, device=generator.device)
    elevation = RING_ELEVATION * torch.randn(count, generator=generator, device=generator.device)
    return upright_matrix(azimuth, elevation)


def _so3(count: int, generator: Generator, options: PoseOptions) -> Tensor:
    # A normalised Gaussian quaternion is uniform on SO(3) (Muller 1959; Shoemake 1992).
    quaternions = torch.randn(count, 4, generator=generator, device=generator.device)
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=-1).unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], dim=-1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], dim=-1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


POSE_DISTRIBUTIONS: dict[str, Callable[[int, Generator, PoseOptions], Tensor]] = {
    "euler_normal": _euler_normal,
    "sphere": _sphere,
    "ring": _ring,
    "so3": _so3,
}


def sample_rotations(count: int, generator: Generator, options: PoseOptions | None = None) -> Float[Tensor, "B 3 3"]:
    """Random rotations from a pose distribution, on the generator's device (a CPU generator: the same everywhere).

    Args:
        count: number of views, B.
        generator: source of randomness, advanced by the call.
        options: the distribution; default euler_normal.
    """
    options = options or PoseOptions()
    return POSE_DISTRIBUTIONS[options.name](count, generator, options)


def training_rotations(count: int, generator: Generator, options: PoseOptions | None = None) -> Float[Tensor, "B 3 3"]:
    """Rotations of a training step: as `sample_rotations`, a share of them from `sphere`, shuffled.

    Args:
        count: number of rotations, B.
        generator: the only source of randomness.
        options: the distribution; default euler_normal with its default share of `sphere`.
    """
    options = options or PoseOptions()
    if options.name != "euler_normal" or options.sphere_share == 0.0:
        return sample_rotations(count, generator, options)
    # As many in every step as the share says, but for the fraction: less varies from step to step.
    fraction = torch.rand((), generator=generator, device=generator.device).item()
    everywhere = int(options.sphere_share * count + fraction)
    rotations = [_euler_normal(count - everywhere, generator, options), _sphere(everywhere, generator, options)]
    return torch.cat(rotations)[torch.randperm(count, generator=generator, device=generator.device)]


def sphere_weights(rotations: Float[Tensor, "B 3 3"], options: PoseOptions | None = None) -> Float[Tensor, " B"]:
    """What each view of a training step weighs, so that together they stand for all upright directions alike.

        w = p_sphere / ((1 - s) p_euler_normal + s p_sphere),   s = sphere_share

    in azimuth and elevation (p_sphere = cos(elevation) / 4 pi); 0 for a camera that hangs upside down, at most 1 / s.

    Args:
        rotations: of `training_rotations`, with these options.
        options: the distribution; default euler_normal with its default share of `sphere`.

    Returns:
        The weights, 1 in the mean. All 1 for another distribution than euler_normal: its own directions are meant then.

    Raises:
        ValueError: views that never look everywhere (a share of 0) cannot stand for all directions.

    Source:
        Importance sampling with a mixture, Owen & Zhou 2000, "Safe and effective importance sampling".
    """
    options = options or PoseOptions()
    if options.name != "euler_normal":
        return torch.ones_like(rotations[:, 0, 0])
    if options.leaves_directions_out:
        raise ValueError(f"poses.sphere_share={options.sphere_share:g}: must be > 0 and <= 1 here")
    # euler_matrix((elevation, azimuth, 0)): its first row is (cos azimuth, 0, sin azimuth)
    azimuth = torch.atan2(rotations[:, 0, 2], rotations[:, 0, 0])
    elevation = torch.atan2(rotations[:, 2, 1], rotations[:, 1, 1])
    turns = 2.0 * math.pi * torch.arange(-2, 3, dtype=rotations.dtype, device=rotations.device)
    drawn = _normal_density(azimuth[:, None] + turns).sum(dim=1) * _normal_density(elevation)
    wanted = elevation.cos().clamp_min(0.0) / (4.0 * math.pi)
    # at a pole of `sphere` alone both are 0
    return wanted / ((1.0 - options.sphere_share) * drawn + options.sphere_share * wanted).clamp_min(TINY)


def _normal_density(value: Tensor) -> Tensor:
    return torch.exp(-0.5 * value.square()) / math.sqrt(2.0 * math.pi)
