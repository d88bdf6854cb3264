"""Line integrals of attenuation through the project's own renderer."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..kernels.absorption import render_grid

THIN = 0.02  # optical depth to which a volume is thinned before it is rendered


def line_integrals(
    attenuation: Float[Tensor, "Z Y X"], rotations: Float[Tensor, "B 3 3"], size: int, samples: int | None = None
) -> Float[Tensor, "B N N"]:
    """The optical depth of each ray, -log(1 - view), of a volume that absorbs nothing.

    The volume is thinned for it, and the result multiplied up again: of a ray that lets nothing pass there would be no
    logarithm, and interpolated opacity is interpolated attenuation where it is small.

    Args:
        attenuation: per world unit, >= 0.
        rotations: x_camera = R x_world.
        size: pixels.
        samples: steps on the ball's diameter; default the voxels along the longest edge, or the
            pixels if these are more.

    Gradients:
        To the attenuation and the rotations.
    """
    samples = max(*attenuation.shape, size) if samples is None else samples
    factor = THIN / max(2.0 * float(attenuation.detach().max()), 1e-30)
    view = render_grid(attenuation * factor, torch.zeros_like(attenuation), rotations, size, samples)
    return -torch.log1p(-view) / factor
