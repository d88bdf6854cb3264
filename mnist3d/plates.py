"""A flat picture through the world's centre, seen from another direction: what a target near its pose looks like.

What it is: one affine warp. What it is not: no rendering, no occlusion.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def seen_as_plate(
    pictures: Float[Tensor, "B 1 H W"], view: Float[Tensor, "B 3 3"], facing: Float[Tensor, "B 3 3"]
) -> Float[Tensor, "B 1 H W"]:
    """A flat picture through the world's centre, facing the eye at rotation `facing`, seen at rotation `view`.

        pixel p of the view shows pixel A^-1 p of the picture,   A = upper left 2x2 of view @ facing^T

    Args:
        pictures: any values; outside them is 0.
        view: x_camera = view @ x_world, less than 90 degrees from `facing`.
        facing: the rotation at which the plate is seen undistorted.
    """
    turned = (view @ facing.mT)[:, :2, :2]
    theta = torch.cat([torch.linalg.inv(turned), turned.new_zeros(len(turned), 2, 1)], dim=2)
    return F.grid_sample(pictures, F.affine_grid(theta, list(pictures.shape), align_corners=False), align_corners=False)
