"""One volume laid on another: the rotation, the shift and the hand that make them agree most."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..geometry.grids import voxel_centres
from .fourier import PADDING, resized, soft_ball, volume_transform
from .fsc import correlation
from .so3 import angle_between, rotation_grid, rotation_of

COARSE, COARSE_SHELL = 16, 5  # voxels and shell at which all rotations are tried
SPACING = math.radians(15.0)  # of the rotations tried; a shell of 5 changes over 12 degrees or more
STARTS, APART = 4, math.radians(30.0)  # how many of the best are refined, and how far apart they are
STEPS, DAMPING = 12, 1e-3  # of Gauss-Newton
TURN, SHIFT = 0.01, 0.1  # of finite differences: radians, voxels
FINEST = 32  # voxels at which the alignment is refined: beyond, it costs more than it finds


@dataclass(frozen=True)
class Alignment:
    """How a volume is laid on another: aligned(x) = volume(h rotation^T (x - shift)), h = -1 where mirrored, else 1.

    Args:
        rotation: x_aligned = rotation @ x, after the mirror.
        shift: world units, x, y, z.
        mirrored: whether it was first mirrored at the origin, which turns the hand.
        correlation: of the two volumes then.
    """

    rotation: Float[Tensor, "3 3"]
    shift: Float[Tensor, " 3"]
    mirrored: bool
    correlation: float

    def apply(self, volume: Float[Tensor, "N N N"]) -> Float[Tensor, "N N N"]:
        """The volume laid on the other; trilinear in space, empty beyond its border."""
        axis = voxel_centres(len(volume)).to(volume)
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        points = (torch.stack([x, y, z], dim=-1) - self.shift.to(volume)) @ self.rotation.to(volume)
        points = -points if self.mirrored else points
        return F.grid_sample(volume[None, None], points[None], align_corners=False, padding_mode="zeros")[0, 0]


def align(moving: Float[Tensor, "N N N"], fixed: Float[Tensor, "N N N"], *, mirror: bool = True) -> Alignment:
    """Lay one volume on another of the same size.

    All rotations are tried at a low resolution, with both volumes' centres of mass in the middle, and the best few
    refined by Gauss-Newton on the coefficients.

    Args:
        moving: is laid on the other.
        fixed: stays.
        mirror: whether its mirror image may be taken, if that fits better.
    """
    tried = _coarse(moving, fixed, mirror)
    size = min(len(fixed), FINEST)
    wanted, given = resized(fixed, size, 3), resized(moving, size, 3)
    best = max((_refined(given, wanted, *each) for each in tried), key=lambda found: found.correlation)
    return best


def _half_ball(shell: int | float) -> Int[Tensor, "F 3"]:
    """Frequencies (x, y, z) of a real volume up to a shell, one of each pair f and -f."""
    most = math.floor(shell)
    axis = torch.arange(-most, most + 1)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    first = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
    kept = first & ((x.square() + y.square() + z.square()) <= shell**2)
    return torch.stack([x[kept], y[kept], z[kept]], dim=-1)


def _read(
    transform: Float[Tensor, "2 M M M"],
    rotations: Float[Tensor, "B 3 3"],
    frequencies: Int[Tensor, "F 3"],
    mirrored: bool,
) -> Float[Tensor, "B F 2"]:
    """Coefficients of the volume turned by each rotation: V(R^T f); of its mirror image the conjugate."""
    fine = transform.shape[-1]
    places = (frequencies.to(rotations) @ rotations * PADDING + fine // 2) * (2.0 / (fine - 1)) - 1.0
    found = F.grid_sample(transform[None], places[None, :, :, None], align_corners=True)[0, :, :, :, 0]
    found = found.permute(1, 2, 0)
    return found * found.new_tensor([1.0, -1.0]) if mirrored else found


def _centre_of_mass(volume: Float[Tensor, "N N N"]) -> Float[Tensor, " 3"]:
    """World units, x, y, z; of what is above 0."""
    mass, axis = volume.clamp_min(0.0) * soft_ball(len(volume)), voxel_centres(len(volume)).to(volume)
    total = mass.sum().clamp_min(1e-30)
    return torch.stack([(mass.sum(axes) * axis).sum() / total for axes in ((0, 1), (0, 2), (1, 2))])


def _shifted(
    found: Float[Tensor, "B F 2"], frequencies: Int[Tensor, "F 3"], shift: Float[Tensor, "B 3"]
) -> Float[Tensor, "B F 2"]:
    angle = -math.pi * shift @ frequencies.T.to(shift)  # a frequency of 1 has one cycle in a width of 2
    return torch.view_as_real(torch.view_as_complex(found.contiguous()) * torch.complex(angle.cos(), angle.sin()))


def _normed(values: Float[Tensor, "B F 2"]) -> Float[Tensor, "B G"]:
    return F.normalize(values.flatten(1), dim=-1)


def _coarse(moving: Tensor, fixed: Tensor, mirror: bool) -> list[tuple[Tensor, Tensor, bool]]:
    """The best rotations, far from each other, each with the shift of the centres of mass and the hand."""
    size = min(COARSE, len(fixed))
    frequencies = _half_ball(min(COARSE_SHELL, size // 2 - 1))
    grid = rotation_grid(SPACING).flatten(0, 1)
    wanted, given = resized(fixed, size, 3), resized(moving, size, 3)
    target, source = _centre_of_mass(wanted), _centre_of_mass(given)
    identity = torch.eye(3)[None]
    of_fixed = _shifted(_read(volume_transform(wanted), identity, frequencies, False), frequencies, -target[None])
    transform = volume_transform(given)
    found: list[tuple[float, Tensor, Tensor, bool]] = []
    for mirrored in (False, True) if mirror else (False,):
        # The shift before the rotation that brings its centre of mass into the middle.
        centre = -source if mirrored else source
        turned = _read(transform, grid, frequencies, mirrored)
        centred = _shifted(turned, frequencies, -(grid @ centre))
        score = _normed(centred) @ _normed(of_fixed)[0]
        for _ in range(STARTS):
            place = int(score.argmax())
            rotation = grid[place]
            found.append((float(score[place]), rotation, target - rotation @ centre, mirrored))
            score = torch.where(angle_between(grid, rotation.expand_as(grid)) < APART, -2.0, score)
    found.sort(key=lambda each: -each[0])
    return [each[1:] for each in found[: STARTS + 1]]


def _refined(moving: Tensor, fixed: Tensor, rotation: Tensor, shift: Tensor, mirrored: bool) -> Alignment:
    """Gauss-Newton on rotation and shift: first on what is coarse, then on half of all shells."""
    size = len(fixed)
    transform, of_fixed = volume_transform(moving * soft_ball(size)), volume_transform(fixed * soft_ball(size))
    voxel = 2.0 / size
    for shell in (min(COARSE_SHELL, size // 2 - 1), max(size // 4, 3)):
        frequencies = _half_ball(shell)
        wanted = _normed(_read(of_fixed, torch.eye(3)[None], frequencies, False))

        def seen(rotations: Tensor, shifts: Tensor, frequencies: Tensor = frequencies) -> Float[Tensor, "B G"]:
            return _normed(_shifted(_read(transform, rotations, frequencies, mirrored), frequencies, shifts))

        error, damping = math.inf, DAMPING
        now = seen(rotation[None], shift[None])
        error = float((wanted - now).square().sum())
        for _ in range(STEPS):
            turns = rotation_of(TURN * torch.eye(3)) @ rotation
            columns = [(seen(turns, shift.expand(3, 3)) - now) / TURN]
            columns.append((seen(rotation.expand(3, 3, 3), shift + SHIFT * voxel * torch.eye(3)) - now) / SHIFT)
            jacobian = torch.cat(columns)
            square = jacobian @ jacobian.T
            square = square + torch.diag(damping * square.diagonal() + 1e-12)
            step = torch.linalg.solve(square, jacobian @ (wanted - now)[0])
            tried = rotation_of(step[:3]) @ rotation, shift + step[3:] * voxel
            then = seen(tried[0][None], tried[1][None])
            after = float((wanted - then).square().sum())
            if after < error:
                (rotation, shift), now, damping = tried, then, damping * 0.3
                done = error - after < 1e-7 * error
                error = after
                if done:
                    break
            else:
                damping *= 10.0
    found = Alignment(rotation, shift, mirrored, 0.0)
    return Alignment(rotation, shift, mirrored, correlation(found.apply(moving), fixed))
