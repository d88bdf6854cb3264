"""How far two volumes agree, shell by shell in Fourier space."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from .fourier import shells_of, soft_ball

HALF, HALF_MAPS = 0.5, 0.143  # usual thresholds: against a known volume, and between two halves of the data
TINY = 1e-30


def shell_correlation(
    first: Float[Tensor, "N N N"], second: Float[Tensor, "N N N"], mask: Float[Tensor, "N N N"] | None = None
) -> Float[Tensor, " S"]:
    """The Fourier shell correlation (FSC) of two volumes, from shell 1 to N / 2.

        FSC(s) = Re sum A B* / sqrt(sum |A|^2 sum |B|^2),   over the coefficients of shell s

    Args:
        first: any scale.
        second: in the same place.
        mask: is multiplied with both; default the unit ball with a soft rim.

    Returns:
        In [-1, 1]; 0 where one of the two has nothing in a shell.

    Source:
        Harauz and van Heel, "Exact filters for general geometry three dimensional reconstruction" (1986).
    """
    size = len(first)
    mask = soft_ball(size).to(first) if mask is None else mask
    one, other = torch.fft.fftn((first * mask).double()), torch.fft.fftn((second * mask).double())
    shell = shells_of(size).round().long().flatten()
    sums = torch.zeros(3, int(shell.max()) + 1, dtype=torch.float64)
    products = ((one * other.conj()).real, one.abs().square(), other.abs().square())
    for total, product in zip(sums, products, strict=True):
        total.index_add_(0, shell, product.flatten())
    across, of_one, of_other = sums[:, 1 : size // 2 + 1]
    return (across / (of_one * of_other).sqrt().clamp_min(TINY)).clamp(-1.0, 1.0)


def crossing(curve: Sequence[float] | Float[Tensor, " S"], threshold: float) -> float:
    """The shell where a curve falls below a threshold for the first time, between shells by a straight line.

    Args:
        curve: of shell 1, 2 and so on.
        threshold: `HALF` or `HALF_MAPS`.

    Returns:
        0 where it begins below; the last shell where it never falls below.
    """
    values = [float(value) for value in curve]
    for place, value in enumerate(values):
        if not value >= threshold:
            return 0.0 if place == 0 else place + (values[place - 1] - threshold) / (values[place - 1] - value)
    return float(len(values))


def correlation(first: Float[Tensor, "N N N"], second: Float[Tensor, "N N N"]) -> float:
    """Pearson's correlation of the voxels in the unit ball."""
    inside = soft_ball(len(first)) > 0.5
    one, other = first[inside].double(), second[inside].double()
    one, other = one - one.mean(), other - other.mean()
    return float((one @ other) / (one.norm() * other.norm()).clamp_min(TINY))
