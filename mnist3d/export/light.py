"""Where the light of a volume's views comes from, and how near points alone come to those views.

For clouds of points: a point shines, but hides nothing. So what is hidden, or black, must not become points.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..geometry.grids import scaled_size
from ..geometry.rotations import PoseOptions, sample_rotations
from ..rendering.renderer import AbsorptionRenderer, for_few_views, render_views
from ..volumes.resampling import resampled
from ..volumes.wrappers import GridField
from .shares import Tell, silent

LIGHT_RESOLUTION = 96  # a finer grid is coarsened: a cloud of points shows no finer detail
LIGHT_VIEWS, VIEWS_AT_ONCE = 64, 8  # directions, uniform on the sphere; some at a time, which bounds the memory
WITH_GRADIENT = 3  # so many views take as long as one of which the gradient is asked
COMPARED_VIEWS, COMPARED_SIZE = 10, 64  # other directions; pixels
SPOT = 1.0  # standard deviation of a point in a compared view, pixels


def emitted_light(
    values: Float[np.ndarray, "2 Z Y X"], tell: Tell = silent
) -> tuple[Float[np.ndarray, "z y x"], Float[np.ndarray, "z y x"]]:
    """How much each voxel gives to the views from all sides, and its brightness.

        light = (1 - absorbance) * sum over views of the integral of transmittance * attenuation at that voxel

    A view is linear in 1 - absorbance, so the renderer's own gradient is that integral, and the light of all voxels
    sums to the brightness of all views.

    Args:
        values: (2, Z, Y, X), attenuation per world unit and absorbance.
        tell: is handed the share that is done and what is done now, for a bar.

    Returns:
        Light, in sums of pixels, and 1 - absorbance, both on a grid of at most 96 voxels along the longest edge.
    """
    grid = torch.as_tensor(values)
    if max(grid.shape[1:]) > LIGHT_RESOLUTION:
        grid = resampled(grid, scaled_size(grid.shape[1:], LIGHT_RESOLUTION))
    absorbance = grid[1].clone().requires_grad_()
    field = GridField(torch.stack([grid[0], absorbance]))
    renderer = for_few_views(AbsorptionRenderer(max(2, *grid.shape[1:])), field, WITH_GRADIENT * LIGHT_VIEWS)
    for done, rotations in enumerate(_directions(LIGHT_VIEWS, seed=0).split(VIEWS_AT_ONCE)):
        tell(VIEWS_AT_ONCE * done / LIGHT_VIEWS, "measuring the light from all sides")
        renderer(field, rotations).sum().backward(inputs=[absorbance], retain_graph=True)
    gradient = absorbance.grad
    light = torch.zeros_like(grid[1]) if gradient is None else -(1.0 - grid[1]) * gradient
    return light.clamp_min(0.0).numpy(), (1.0 - grid[1]).numpy()


def likeness(values: Float[np.ndarray, "2 Z Y X"], points: Float[np.ndarray, "P 3"]) -> float:
    """PSNR of views of equally bright points, which hide nothing, against views of the volume.

    Ten directions, none of those that the light was measured from; a point is a Gaussian spot of one pixel of 64. The
    brightness of a point is one number for all views, by least squares, and a pixel cannot be brighter than 1.

    Args:
        values: (2, Z, Y, X), attenuation per world unit and absorbance.
        points: in the world, xyz.

    Returns:
        Decibels; higher is more alike, inf is the same.
    """
    rotations = _directions(COMPARED_VIEWS, seed=1)
    field = GridField(torch.as_tensor(values))
    renderer = for_few_views(AbsorptionRenderer(COMPARED_SIZE), field, len(rotations))
    views = render_views(field, renderer, rotations)[:, 0].double().numpy()
    spots = np.stack([_spots(points, rotation.double().numpy()) for rotation in rotations])
    gain = float((spots * views).sum() / max(float((spots * spots).sum()), np.finfo(np.float64).tiny))
    error = float(np.square(np.clip(gain * spots, 0.0, 1.0) - views).mean())
    return math.inf if error == 0.0 else -10.0 * math.log10(error)


def _directions(count: int, seed: int) -> Float[Tensor, "B 3 3"]:
    return sample_rotations(count, torch.Generator().manual_seed(seed), PoseOptions("sphere"))


def _spots(points: Float[np.ndarray, "P 3"], rotation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "H W"]:
    """The points seen orthographically: each is shared among four pixels, then all are blurred."""
    from scipy.ndimage import gaussian_filter

    place = ((points.astype(np.float64) @ rotation.T)[:, :2] + 1.0) * COMPARED_SIZE / 2.0 - 0.5
    low = np.floor(place).astype(np.int64)
    share = place - low
    width = COMPARED_SIZE + 2  # a border, for what lies half a pixel outside
    seen = np.zeros(width * width)
    for right in (0, 1):
        for down in (0, 1):
            weight = np.abs(1 - right - share[:, 0]) * np.abs(1 - down - share[:, 1])
            index = (low[:, 1] + 1 + down) * width + low[:, 0] + 1 + right
            seen += np.bincount(index, weight, minlength=width * width)
    inner = seen.reshape(width, width)[1:-1, 1:-1]
    return gaussian_filter(inner, SPOT, mode="constant")
