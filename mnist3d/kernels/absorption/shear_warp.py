"""The geometry of the "slices" quadrature: which way each view is marched, sheared and warped.

The few numbers that a view needs, as differentiable functions of its rotation, and the share of each voxel inside the
ball. `slices_reference.py` and `slices_numba.py` render with them.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

# For each marching axis (x, y, z) the axes along the rows and along the columns of its slices.
ROW_AXIS, COLUMN_AXIS = (2, 2, 1), (1, 0, 0)

# Samples that compiled loops take at once (float32 in a 256-bit register); their rows are padded to fit.
LANES = 8


class Shear(NamedTuple):
    """How each view is marched."""

    axis: Int[Tensor, " B"]
    """0, 1 or 2: the world axis that the view looks along most; its slices are the samples."""
    forward: Int[Tensor, " B"]
    """1 where depth grows with that axis, else 0: the slices are then taken from the last to the first."""
    numbers: Float[Tensor, "B 7"]
    """warp (a00, a01, a10, a11): the ray of pixel (u, v) crosses the plane through the centre at the world
    coordinates column = a00 u + a01 v, row = a10 u + a11 v; shear (column, row): how far it moves there for
    each unit along the axis; length: of the ray inside one unit of the axis, world units."""


def shear_of(rotation: Float[Tensor, "B 3 3"]) -> Shear:
    """Decompose views as in Lacroute and Levoy: a shear along the dominant axis, then a warp of the image.

    With d = rotation[2] the direction of sight in the world and m = argmax |d|:

        shear_i  = d_i / d_m                                        |shear_i| <= 1
        warp_i0  = rotation[0, i] - shear_i rotation[0, m],  warp_i1 = rotation[1, i] - shear_i rotation[1, m]
        length   = 1 / |d_m|                                        1 ... sqrt(3)

    Args:
        rotation: x_camera = rotation @ x_world.

    Returns:
        The numbers of each view.

    Gradients:
        From `numbers` to rotation; the choice of the axis has none.

    Source:
        Lacroute and Levoy, "Fast volume rendering using a shear-warp factorization" (1994), section 2.
    """
    axis = rotation[:, 2].abs().argmax(dim=-1)
    column = torch.tensor(COLUMN_AXIS, device=rotation.device)[axis]
    row = torch.tensor(ROW_AXIS, device=rotation.device)[axis]

    def take(index: Tensor) -> Tensor:
        return rotation.gather(2, index[:, None, None].expand(-1, 3, 1))[..., 0]

    along, across, down = take(axis), take(column), take(row)
    shear_column, shear_row = across[:, 2] / along[:, 2], down[:, 2] / along[:, 2]
    numbers = (
        across[:, 0] - shear_column * along[:, 0],
        across[:, 1] - shear_column * along[:, 1],
        down[:, 0] - shear_row * along[:, 0],
        down[:, 1] - shear_row * along[:, 1],
        shear_column,
        shear_row,
        1.0 / along[:, 2].abs(),
    )
    return Shear(axis, (along[:, 2] > 0).long(), torch.stack(numbers, dim=-1))


def margin(extent: int) -> int:
    """Pixels that the sheared image reaches beyond a grid axis of `extent` voxels, on each side.

    A sheared ball is at most sqrt(2) as wide as the ball; three more pixels hold the rim of partly covered
    voxels and the neighbours that interpolation reads.
    """
    return math.ceil(extent * (math.sqrt(2.0) - 1.0) / 2.0) + 3


def ball_share(
    shape: Sequence[int], *, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Float[Tensor, "Z Y X"]:
    """Share of each voxel that lies in the unit ball, as if the sphere were flat inside a voxel.

        share = clamp(1/2 + (1 - |p|) / width, 0, 1),    width = |(p_x w_x, p_y w_y, p_z w_z)| / |p|

    with p the voxel's centre and w its edges, so that width is how thick it is across the sphere.

    Args:
        shape: (Z, Y, X).
        dtype: of the result.
        device: of the result.

    Returns:
        Values in [0, 1].
    """
    axes = [(2.0 * torch.arange(n, dtype=dtype, device=device) + 1.0) / n - 1.0 for n in shape]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    radius = (x * x + y * y + z * z).sqrt()
    scaled = ((x / shape[2]).square() + (y / shape[1]).square() + (z / shape[0]).square()).sqrt() * 2.0
    centre = radius == 0.0
    share = 0.5 + (1.0 - radius) * radius / torch.where(centre, torch.ones_like(scaled), scaled)
    return torch.where(centre, torch.ones_like(share), share.clamp(0.0, 1.0))
