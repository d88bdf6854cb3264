"""Rotations for a search: a grid over all of them, small turns, distances, and the Euler angles of cryo-EM."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

TINY = 1e-9  # rad, a turn that is divided by
GOLDEN_ANGLE = math.pi * (1.0 + math.sqrt(5.0))


def rotation_grid(spacing: float) -> Float[Tensor, "D P 3 3"]:
    """All rotations, about evenly: viewing directions on a Fibonacci spiral, and for each the rolls.

    Args:
        spacing: of neighbours, radians, (0, pi / 2].

    Returns:
        D directions, P rolls of each; x_camera = R x_world.

    Source:
        Gonzalez, "Measurement of areas on a sphere using Fibonacci and latitude-longitude lattices" (2010).
    """
    count = max(1, round(4.0 * math.pi / spacing**2))
    place = torch.arange(count, dtype=torch.float64) + 0.5
    height = 1.0 - 2.0 * place / count
    around = GOLDEN_ANGLE * place
    level = (1.0 - height.square()).sqrt()
    forward = torch.stack([level * around.cos(), level * around.sin(), height], dim=-1)
    helper = torch.where(height.abs()[:, None] > 0.9, forward.new_tensor([1.0, 0, 0]), forward.new_tensor([0, 0, 1.0]))
    right = F.normalize(torch.linalg.cross(helper, forward), dim=-1)
    upright = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=-2)
    rolls = max(1, round(2.0 * math.pi / spacing))
    turns = rotation_of(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64) * _angles(rolls)[:, None])
    return (turns[None] @ upright[:, None]).float()


def _angles(count: int) -> Float[Tensor, " P"]:
    return 2.0 * math.pi * torch.arange(count, dtype=torch.float64) / count


def rotation_of(vector: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 3 3"]:
    """The rotation about an axis by the vector's length, in radians (Rodrigues).

    Gradients:
        To the vector, also at 0.
    """
    angle = (vector.square().sum(-1, keepdim=True) + TINY**2).sqrt()[..., None]
    x, y, z = vector.unbind(-1)
    nothing = torch.zeros_like(x)
    cross = torch.stack([nothing, -z, y, z, nothing, -x, -y, x, nothing], dim=-1).unflatten(-1, (3, 3))
    identity = torch.eye(3, dtype=vector.dtype, device=vector.device)
    return identity + angle.sin() / angle * cross + (1.0 - angle.cos()) / angle.square() * (cross @ cross)


def angle_between(first: Float[Tensor, "*#A 3 3"], second: Float[Tensor, "*#A 3 3"]) -> Float[Tensor, "..."]:
    """How far one rotation is from another, radians, [0, pi]."""
    # 2 sqrt(2) sin(angle / 2) is the Frobenius distance: exact for small angles too, where acos is not.
    chord = (first - second).square().sum((-1, -2)).sqrt()
    return 2.0 * torch.asin((chord / math.sqrt(8.0)).clamp(max=1.0))


def zyz_of(rotation: Float[Tensor, "B 3 3"]) -> Float[Tensor, "B 3"]:
    """RELION's rot, tilt, psi of rotations, radians; tilt in [0, pi].

    R = Z(psi) Y(tilt) Z(rot), each turning the axes, so that R's last row is the viewing direction
    (sin tilt cos rot, sin tilt sin rot, cos tilt).

    Source:
        RELION, `Euler_matrix2angles`; Heymann et al., "Common conventions for interchange and archiving of
        three-dimensional electron microscopy information in structural biology" (2005).
    """
    rotation = rotation.double()
    tilt = torch.atan2(rotation[:, 2, :2].norm(dim=-1), rotation[:, 2, 2])
    rot = torch.atan2(rotation[:, 2, 1], rotation[:, 2, 0])
    psi = torch.atan2(rotation[:, 1, 2], -rotation[:, 0, 2])
    pole = rotation[:, 2, :2].norm(dim=-1) < 1e-7  # rot and psi turn about the same axis there
    alone = torch.atan2(rotation[:, 0, 1], rotation[:, 1, 1])  # psi +- rot
    return torch.stack([torch.where(pole, 0.0, rot), tilt, torch.where(pole, alone, psi)], dim=-1)


def matrix_of_zyz(angles: Float[Tensor, "B 3"]) -> Float[Tensor, "B 3 3"]:
    """The rotations of RELION's rot, tilt, psi, radians; the inverse of `zyz_of`."""
    rot, tilt, psi = angles.double().unbind(-1)
    return _about_z(psi) @ _about_y(tilt) @ _about_z(rot)


def _about_z(angle: Float[Tensor, " B"]) -> Float[Tensor, "B 3 3"]:
    c, s, o, i = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([c, s, o, -s, c, o, o, o, i], dim=-1).unflatten(-1, (3, 3))


def _about_y(angle: Float[Tensor, " B"]) -> Float[Tensor, "B 3 3"]:
    c, s, o, i = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([c, o, -s, o, i, o, s, o, c], dim=-1).unflatten(-1, (3, 3))
