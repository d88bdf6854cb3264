"""Small affine registration: an image moved, turned, sheared and stretched a little to meet another.

A few Gauss-Newton steps on blurred images, and the warp; only small motions are found.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..geometry.on_device import made_once

ROUNDS = 2
# Variance of a blurred pixel that no affine map explains: with it an image without edges stays where it is.
UNEXPLAINED = 0.02


def blur(images: Float[Tensor, "N 1 H W"]) -> Float[Tensor, "N 1 H W"]:
    """3x3 binomial blur: strokes a pixel apart count as near, not as different."""
    return F.conv2d(images, _binomial(images.device, images.dtype), padding=1)


@torch.no_grad()
def registered(
    images: Float[Tensor, "B 1 H W"], views: Float[Tensor, "B 1 H W"], reach: float
) -> Float[Tensor, "B 1 H W"]:
    """Each image under a small affine map that brings it nearer to its view.

        image'(p) = image(p + A p + b),   each entry of A within +-2 reach, of b within +-reach
        A, b towards the least  |blur(view) - blur(image')|^2 / .02 + |A / reach|^2 + |2 b / reach|^2

    by two Gauss-Newton steps, each cut off at those limits; an image that the map found does not bring nearer is
    returned as it is. Made for images of about 28 pixels: the blur is of 3 x 3, so in larger ones it sees less far.

    Args:
        images: what is moved; beyond its edges it is 0.
        views: what each should meet.
        reach: half the largest entry of A, and the largest of the shift b (the image is 2 wide), 0 to below .25,
            where every map is invertible; 0 leaves the images as they are.

    Gradients:
        None.

    Source:
        Lucas & Kanade, "An iterative image registration technique" (1981), with a Gaussian prior; of digits, the
        tangent distance of Simard, LeCun & Denker (1993).
    """
    if reach == 0.0 or not len(images):
        return images
    count, _, height, width = images.shape
    fixed = _fixed(height, width, reach, images.device, images.dtype)
    goal, moved, seen = blur(views), images, blur(images)
    at_first = residual = (goal - seen).flatten(1)
    entries: Tensor | None = None
    for _ in range(ROUNDS):
        rises = torch.stack([seen @ fixed.across.mT, fixed.down @ seen], dim=1).flatten(2)
        # d image' / d entries
        slopes = ((rises * fixed.scale)[:, :, None] * fixed.places).flatten(1, 2)
        system = slopes @ slopes.mT + fixed.stiff
        wanted = (slopes @ residual[..., None])[..., 0]
        if entries is not None:
            wanted = wanted - fixed.stiffness * entries
        # Not `solve`, which would wait for the device to say that it could: a system this stiff can be solved, and of
        # one that is not finite the map is not taken.
        step: Tensor = torch.linalg.solve_ex(system, wanted)[0].contiguous()
        entries = (step if entries is None else entries + step).clamp(fixed.least, fixed.most)
        grid = ((fixed.identity + entries).view(count, 2, 3) @ fixed.places).mT.reshape(count, height, width, 2)
        moved = F.grid_sample(images, grid, align_corners=False)
        seen = blur(moved)
        residual = (goal - seen).flatten(1)
    nearer = residual.square().sum(dim=1) < at_first.square().sum(dim=1)
    return torch.where(nearer[:, None, None, None], moved, images)


class _Fixed(NamedTuple):
    """What `registered` needs of a size of images and a reach."""

    places: Float[Tensor, "3 pixels"]
    """(x, y, 1) of the pixels' centres, the image 2 wide and 2 high."""
    across: Float[Tensor, "W W"]
    """Of each pixel of a row the difference of its two neighbours, 0 at the row's ends."""
    down: Float[Tensor, "H H"]
    """The same of a column."""
    scale: Float[Tensor, "2 1"]
    """Of these differences, to slopes across and down."""
    identity: Float[Tensor, "6"]
    """The map that moves nothing, as entries."""
    least: Float[Tensor, "6"]
    """How far below it each entry may be."""
    most: Float[Tensor, "6"]
    """How far above it."""
    stiffness: Float[Tensor, "6"]
    """What draws each entry back to it."""
    stiff: Float[Tensor, "6 6"]
    """The same as a diagonal."""


def _differences(count: int) -> Float[Tensor, "N N"]:
    """As a matrix: plus the next one and minus the one before, nothing at the ends."""
    matrix = torch.zeros(count, count)
    inner = torch.arange(1, count - 1)
    matrix[inner, inner + 1], matrix[inner, inner - 1] = 1.0, -1.0
    return matrix


@made_once
def _binomial(device: torch.device, dtype: torch.dtype) -> Float[Tensor, "1 1 3 3"]:
    kernel = torch.tensor([1.0, 2.0, 1.0], dtype=dtype, device=device) / 4.0
    return (kernel[:, None] * kernel)[None, None]


@made_once
def _fixed(height: int, width: int, reach: float, device: torch.device, dtype: torch.dtype) -> _Fixed:
    y = (torch.arange(height, device=device, dtype=dtype) + 0.5) * 2 / height - 1
    x = (torch.arange(width, device=device, dtype=dtype) + 0.5) * 2 / width - 1
    y, x = torch.meshgrid(y, x, indexing="ij")
    prior = reach * torch.tensor([1.0, 1.0, 0.5, 1.0, 1.0, 0.5], device=device, dtype=dtype)
    stiffness = UNEXPLAINED / prior.square()
    return _Fixed(
        torch.stack([x, y, torch.ones_like(x)]).flatten(1),
        _differences(width).to(device, dtype),
        _differences(height).to(device, dtype),
        torch.tensor([[width / 4], [height / 4]], device=device, dtype=dtype),
        torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0], device=device, dtype=dtype),
        -2.0 * prior,
        2.0 * prior,
        stiffness,
        torch.diag(stiffness),
    )
