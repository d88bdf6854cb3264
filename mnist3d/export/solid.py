"""Where the solid ends: from a field that fades out to a thing with a surface, for meshes and block models.

Which matter counts, and the level whose views match the volume's own best.
"""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..geometry.grids import scaled_size, voxel_centres
from ..geometry.rotations import turntable
from ..rendering.renderer import AbsorptionRenderer, for_few_views, render_views
from ..volumes.resampling import resampled
from ..volumes.wrappers import GridField

Matter = Literal["bright", "all"]
LEVELS = 20  # tried, evenly spaced in opacity up to the largest
COMPARED_SIZE = 32  # pixels of the compared views, about what the sculpture was made for
COMPARED_RESOLUTION = 64  # a finer grid is coarsened for the comparison alone
COMPARED_VIEWS, COMPARED_ELEVATIONS = 6, (0.0, 0.5, -0.5)  # views a turn, radians


def matter_field(values: Float[np.ndarray, "2 Z Y X"], matter: Matter) -> Float[np.ndarray, "Z Y X"]:
    """What counts as solid, per world unit: all that intercepts light, or only as much of it as gives light back."""
    return values[0] if matter == "all" else values[0] * (1.0 - values[1])


@torch.no_grad()
def best_level(values: Float[np.ndarray, "2 Z Y X"], matter: Matter) -> tuple[float, float]:
    """The level at which the solid looks most like the volume's own views, and how much it does.

    Between voxels it is the opacity of a voxel step that is interpolated, as in the renderer and in the mesh. The solid
    is compared with renderings from 18 sides: its silhouettes where only bright matter
    counts, its surface painted with 1 - absorbance where all does. The measure is the sum of the smaller over the
    sum of the larger brightness (Ruzicka similarity; for black and white views intersection over union).

    Args:
        values: (2, Z, Y, X), attenuation per world unit and absorbance.
        matter: what counts as solid.

    Returns:
        Level, per world unit, and similarity in [0, 1]; (0, 0) for an empty volume.
    """
    grid = torch.as_tensor(values)
    if max(grid.shape[1:]) > COMPARED_RESOLUTION:
        grid = resampled(grid, scaled_size(grid.shape[1:], COMPARED_RESOLUTION))
    step = 2.0 / max(grid.shape[1:])
    opacity = -torch.expm1(-step * torch.from_numpy(matter_field(grid.numpy(), matter)))
    highest = float(opacity.max())
    if highest <= 0.0:
        return 0.0, 0.0
    rotations = torch.cat([turntable(COMPARED_VIEWS, elevation).to(grid) for elevation in COMPARED_ELEVATIONS])
    field = GridField(grid)
    renderer = for_few_views(AbsorptionRenderer(COMPARED_SIZE), field, len(rotations))
    views = render_views(field, renderer, rotations)[:, 0]
    levels = highest * (torch.arange(LEVELS, device="cpu") + 0.5) / LEVELS
    channels = torch.stack([opacity, 1.0 - grid[1]])
    shared, joint = torch.zeros(LEVELS, device="cpu"), torch.zeros(LEVELS, device="cpu")
    for rotation, view in zip(rotations, views, strict=True):
        along = _along_rays(channels, rotation)
        densest = along[0].amax(dim=0)
        for k, level in enumerate(levels):
            shown = _shown(along, densest, float(level), matter)
            shared[k] += torch.minimum(shown, view).sum()
            joint[k] += torch.maximum(shown, view).sum()
    similarity = shared / joint.clamp_min(1e-9)
    best = int(similarity.argmax())
    return float(-torch.log1p(-levels[best]) / step), float(similarity[best])


def _along_rays(channels: Float[Tensor, "2 Z Y X"], rotation: Float[Tensor, "3 3"]) -> Float[Tensor, "2 S H W"]:
    """Both channels at the samples of every ray, front first; zero outside the unit ball."""
    rotation = rotation.to(channels)
    centre = voxel_centres(COMPARED_SIZE).to(channels)
    z, y, x = torch.meshgrid(centre, centre, centre, indexing="ij")
    camera = torch.stack([x, y, z], dim=-1)
    found = F.grid_sample(channels[None], (camera @ rotation)[None], padding_mode="border", align_corners=False)[0]
    return found * (camera.square().sum(dim=-1) < 1.0)


def _shown(
    along: Float[Tensor, "2 S H W"], densest: Float[Tensor, "H W"], level: float, matter: Matter
) -> Float[Tensor, "H W"]:
    hit = densest >= level
    if matter == "bright":
        return hit.float()
    first = (along[0] >= level).int().argmax(dim=0, keepdim=True)
    return along[1].gather(0, first)[0] * hit
