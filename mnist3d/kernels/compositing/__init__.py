"""Front-to-back compositing of the samples along a ray.

The discrete form of the image formation for given opacities, from any volume.
"""

from jaxtyping import Float
from torch import Tensor

from .reference import composite_reference


def composite(opacity: Float[Tensor, "*rays S"], absorbance: Float[Tensor, "*rays S"]) -> Float[Tensor, "*rays"]:
    """Light that the samples of each ray send to the eye.

        transmittance_k = prod_{j < k} (1 - opacity_j)
        image           = sum_k transmittance_k * opacity_k * (1 - absorbance_k)

    Args:
        opacity: share of the light each step intercepts, [0, 1]; sample 0 is nearest to the eye.
        absorbance: share of the intercepted light that is lost, [0, 1].

    Returns:
        One value a ray, in [0, 1] up to rounding.

    Gradients:
        To both arguments, also where an opacity is exactly 1 (nothing is divided by 1 - opacity).

    Source:
        Max, "Optical models for direct volume rendering" (1995), eq. 9, with colour 1 - absorbance.
    """
    return composite_reference(opacity, absorbance)


__all__ = ["composite"]
