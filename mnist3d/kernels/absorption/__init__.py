"""The fused picture of a dense grid: rotate, sample, composite, in one operation.

What it is: a pure function of (grid, rotation, picture size, samples a ray), with one contract for all
implementations. What it is not: it knows no volumes, no cameras beyond the orthographic one of
`docs/conventions.md`, and keeps no state.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from .quadrature import ball_quadrature
from .reference import render_grid_reference

IMPLEMENTATIONS = ("auto", "reference")


def render_grid(
    attenuation: Float[Tensor, "Z Y X"],
    absorbance: Float[Tensor, "Z Y X"],
    rotation: Float[Tensor, "B 3 3"],
    image_size: int,
    num_samples: int,
    impl: str = "auto",
) -> Float[Tensor, "B H W"]:
    """Orthographic pictures of a dense grid that fills [-1, 1]^3 and is cut to the unit ball.

    The ray of pixel (v, u) is cut into `num_samples` steps of length 2 / num_samples on [-1, 1]; each
    step is clipped to the ball and sampled once, in the middle of what is left of it:

        opacity_voxel = 1 - exp(-attenuation * 2 / num_samples)         once a voxel
        opacity_k     = share_k * trilinear(opacity_voxel, p_k)         share_k: part of step k in the ball
        absorbance_k  = trilinear(absorbance, p_k)
        image         = composite(opacity_k, absorbance_k)

    The interpolated quantity is the opacity of one step, not the attenuation: both converge to the same
    integral as the step shrinks, and an `exp` a sample would cost more than the sampling itself.

    Args:
        attenuation: per world unit, >= 0, any size; voxel (k, j, i) has its centre at
            ((2i + 1) / X - 1, (2j + 1) / Y - 1, (2k + 1) / Z - 1); beyond the outermost centres the
            outermost values go on.
        absorbance: [0, 1], the same shape.
        rotation: x_camera = rotation @ x_world.
        image_size: pixels along each edge of the square picture of [-1, 1]^2.
        num_samples: steps on the ball's diameter.
        impl: "reference" (plain PyTorch, any device and float dtype) or "auto".

    Returns:
        (B, H, W) with H = W = image_size, values in [0, 1] up to rounding.

    Raises:
        ValueError: unknown `impl`, or shapes that do not fit.

    Gradients:
        To attenuation, absorbance and rotation.
    """
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl={impl!r}: allowed are {', '.join(IMPLEMENTATIONS)}")
    if attenuation.shape != absorbance.shape:
        raise ValueError(
            f"attenuation is {tuple(attenuation.shape)} but absorbance is {tuple(absorbance.shape)}: "
            "both must be the same (Z, Y, X)"
        )
    opacity = -torch.expm1(-attenuation * (2.0 / num_samples))
    return render_grid_reference(opacity, absorbance, rotation, image_size, num_samples)


__all__ = ["ball_quadrature", "render_grid"]
