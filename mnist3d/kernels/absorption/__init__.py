"""Rendering a dense grid: rotate, sample, composite, fused into one operation.

A pure function of (grid, rotation, image size, samples a ray), with one contract for all implementations. The camera
is the orthographic one of `docs/conventions.md`.
"""

from jaxtyping import Float
from torch import Tensor

from .cases import random_rotations
from .implementations import IMPLEMENTATIONS, QUADRATURES, check_can_compute, implementation
from .quadrature import ball_quadrature
from .sampling import sample_grid


def render_grid(
    attenuation: Float[Tensor, "Z Y X"],
    absorbance: Float[Tensor, "Z Y X"],
    rotation: Float[Tensor, "B 3 3"],
    image_size: int,
    num_samples: int,
    impl: str = "auto",
    quadrature: str = "trilinear",
    at_once: int | None = None,
) -> Float[Tensor, "B H W"]:
    """Orthographic images of a dense grid that fills [-1, 1]^3 and is cut to the unit ball.

    quadrature="trilinear": the ray of pixel (v, u) is cut into `num_samples` steps of length 2 / num_samples
    on [-1, 1]; each step is clipped to the ball and sampled once, in the middle of what is left of it:

        opacity_voxel = 1 - exp(-attenuation * 2 / num_samples)         once a voxel
        opacity_k     = share_k * trilinear(opacity_voxel, p_k)         share_k: part of step k in the ball
        absorbance_k  = trilinear(absorbance, p_k)
        image         = composite(opacity_k, absorbance_k)

    The interpolated quantity is the opacity of one step, not the attenuation: both converge to the same
    integral as the step shrinks, and an `exp` a sample would cost more than the sampling itself.

    quadrature="slices": the grid's own slices across the axis m that the view looks along most are the
    samples. A sheared image, one ray for each voxel of a slice, is composited and then warped:

        attenuation_voxel = attenuation * share of the voxel in the ball        `ball_share`, once a voxel
        opacity_k         = 1 - exp(-bilinear(attenuation_voxel in slice k) * 2 / (N_m |d_m|))
        absorbance_k      = bilinear(absorbance in slice k)
        image             = bilinear(composite(opacity_k, absorbance_k)), 0 for pixels outside the unit disc

    with d = rotation[2] and N_m slices. `num_samples` has no influence; the sharpness is the grid's, not the
    image's. Against "trilinear", which cuts each ray at the sphere, the ball's rim is a ramp one voxel
    wide; an image jumps by O(1 / N) where m changes (two components of d equal); an axis of very few voxels
    is a poor set of slices. Both converge to the same image as the grid is refined. `rotation` must be
    a rotation, and attenuation finite.

    Args:
        attenuation: per world unit, >= 0, any size; voxel (k, j, i) has its centre at
            ((2i + 1) / X - 1, (2j + 1) / Y - 1, (2k + 1) / Z - 1); beyond the outermost centres the
            outermost values go on.
        absorbance: [0, 1], the same shape.
        rotation: x_camera = rotation @ x_world.
        image_size: pixels along each edge of the square image of [-1, 1]^2.
        num_samples: steps on the ball's diameter; without influence on "slices".
        impl: "reference" (plain PyTorch, any device and float dtype), "numba" (CPU, float32 and float64,
            torch.get_num_threads() threads), "triton" (CUDA, float32 and float64, quadrature="trilinear") or "auto":
            on the CPU numba, on CUDA Triton if it is faster there; else the reference. Before "auto" takes one it
            compares it with the reference, once a process (`kernels.choice.verdict`), and says once what it took.
            On a GPU it takes the reference while torch's deterministic algorithms are asked for.
        quadrature: "trilinear" or "slices".
        at_once: views of which the reference keeps its samples at a time, >= 1; those of other views it computes again
            when a gradient is asked for. None: of all. The others keep none, and have no use for it.

    Returns:
        (B, H, W) with H = W = image_size, values in [0, 1] up to rounding.

    Raises:
        ValueError: unknown `impl` or `quadrature`, shapes that do not fit, or tensors that the chosen `impl`
            cannot take.
        ImportError: impl="numba" or "triton" where that cannot be imported; "auto" takes the reference there.

    Gradients:
        To attenuation, absorbance and rotation. Only impl="reference" can be differentiated twice.

    Source:
        Max, "Optical models for direct volume rendering" (1995), eq. 9; for slices Lacroute and Levoy, "Fast
        volume rendering using a shear-warp factorization" (1994).
    """
    _check(attenuation, absorbance, rotation, image_size, num_samples, at_once)
    render = implementation(impl, quadrature, attenuation, absorbance, rotation, image_size, at_once)
    return render(attenuation, absorbance, rotation, image_size, num_samples)


def _check(
    attenuation: Tensor,
    absorbance: Tensor,
    rotation: Tensor,
    image_size: int,
    num_samples: int,
    at_once: int | None,
) -> None:
    if attenuation.shape != absorbance.shape or attenuation.ndim != 3 or attenuation.numel() == 0:
        raise ValueError(
            f"attenuation is {tuple(attenuation.shape)} and absorbance {tuple(absorbance.shape)}: "
            "both must be the same (Z, Y, X), without an empty axis"
        )
    if rotation.ndim != 3 or rotation.shape[1:] != (3, 3):
        raise ValueError(f"rotation is {tuple(rotation.shape)}: it must be (B, 3, 3); add [None] to a single matrix")
    for name, value in (("image_size", image_size), ("num_samples", num_samples), ("at_once", at_once)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: it must be at least 1")


__all__ = [
    "IMPLEMENTATIONS",
    "QUADRATURES",
    "ball_quadrature",
    "check_can_compute",
    "random_rotations",
    "render_grid",
    "sample_grid",
]
