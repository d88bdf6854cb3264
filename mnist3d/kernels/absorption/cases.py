"""Volumes and rotations that "auto" compares two renderers on: a small hostile case, and one as a training step has.

Of attenuation, whichever the quadrature. The contract for authors of kernels, which is far longer, stands in
`mnist3d.testing`.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from ..choice import Case

# (Z, Y, X), views, image_size, num_samples. Small: unequal extents, more samples than voxels. As in a step: the
# default run's, on which the renderers were first timed (setting A of benchmarks/renderer.py).
SMALL = ((5, 4, 6), 3, 9, 7)
AS_IN_A_STEP = ((48, 48, 48), 40, 28, 48)


def cases() -> Iterator[Case]:
    """The small one first. Always the same; torch's own random numbers are not touched."""
    generator = torch.Generator().manual_seed(0)
    (small, *few), (shape, *many) = SMALL, AS_IN_A_STEP
    yield Case("a small batch", (*_hostile(small, generator), random_rotations(few[0], generator)), tuple(few[1:]))
    yield Case(f"{many[0]} views", (*_smooth(shape), random_rotations(many[0], generator)), tuple(many[1:]))


def random_rotations(views: int, generator: torch.Generator) -> Float[Tensor, "B 3 3"]:
    """In float64 on the CPU, uniform over all rotations (the QR decomposition of Gaussian matrices)."""
    if views == 0:
        return torch.zeros(0, 3, 3, dtype=torch.float64)
    q, r = torch.linalg.qr(torch.randn(views, 3, 3, generator=generator, dtype=torch.float64, device="cpu"))
    q = q * torch.diagonal(r, dim1=-2, dim2=-1).sign()[:, None, :]
    return q * torch.linalg.det(q)[:, None, None]


def _hostile(shape: tuple[int, int, int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Attenuation, of which a quarter is exactly 0 and a tenth opaque (opacity exactly 1), and absorbance."""
    noise, kind, absorbance = torch.rand((3, *shape), generator=generator, dtype=torch.float64, device="cpu")
    return torch.where(kind < 0.25, 0.0, torch.where(kind > 0.9, 1e3, 4.0 * noise)), absorbance


def _smooth(shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """The slope of an interpolation jumps between cells: of millions of samples some lie within rounding of a border,
    and where neighbours differ much the gradient to the rotation would be that of their side."""
    axes = [torch.linspace(-1.0, 1.0, extent, dtype=torch.float64, device="cpu") for extent in shape]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    near = torch.exp(-3.0 * (x * x + y * y + z * z))
    return 4.0 * near * (1.0 + torch.sin(4.0 * x + 2.0 * y)), 0.5 + 0.4 * torch.sin(3.0 * y + z)
