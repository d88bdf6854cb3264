"""Small affine registration: an image moved, turned, sheared and stretched a little to meet another.

A few Gauss-Newton steps on blurred images, and the warp; only small motions are found.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def blur(images: Float[Tensor, "N 1 H W"]) -> Float[Tensor, "N 1 H W"]:
    """3x3 binomial blur: strokes a pixel apart count as near, not as different."""
    kernel = torch.tensor([1.0, 2.0, 1.0], dtype=images.dtype, device=images.device) / 4.0
    return F.conv2d(images, (kernel[:, None] * kernel)[None, None], padding=1)


ROUNDS = 2
# Variance of a blurred pixel that no affine map explains: with it an image without edges stays where it is.
UNEXPLAINED = 0.02


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
    y = (torch.arange(height, device=images.device, dtype=images.dtype) + 0.5) * 2 / height - 1
    x = (torch.arange(width, device=images.device, dtype=images.dtype) + 0.5) * 2 / width - 1
    y, x = torch.meshgrid(y, x, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)]).flatten(1)  # 3 x pixels
    prior = reach * images.new_tensor([1.0, 1.0, 0.5, 1.0, 1.0, 0.5])
    identity = images.new_tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
    stiffness = UNEXPLAINED / prior.square()
    goal, unmoved, entries = blur(views), blur(images), images.new_zeros(count, 6)
    moved, seen = images, unmoved
    for _ in range(ROUNDS):
        across = F.pad(seen[..., 2:] - seen[..., :-2], (1, 1)).flatten(1) * (width / 4)
        down = F.pad(seen[:, :, 2:] - seen[:, :, :-2], (0, 0, 1, 1)).flatten(1) * (height / 4)
        slopes = torch.cat([across[:, None] * places, down[:, None] * places], dim=1)  # d image' / d entries
        residual = (goal - seen).flatten(1)
        system = slopes @ slopes.mT + torch.diag(stiffness)
        wanted = (slopes @ residual[..., None])[..., 0] - stiffness * entries
        entries = (entries + torch.linalg.solve(system, wanted)).clamp(-2.0 * prior, 2.0 * prior)
        grid = ((identity + entries).view(count, 2, 3) @ places).mT.reshape(count, height, width, 2)
        moved = F.grid_sample(images, grid, align_corners=False)
        seen = blur(moved)
    nearer = (seen - goal).square().sum(dim=(1, 2, 3)) < (unmoved - goal).square().sum(dim=(1, 2, 3))
    return torch.where(nearer[:, None, None, None], moved, images)
