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
from .shares import Tell, silent

Matter = Literal["bright", "all"]
LEVELS = 20  # tried, evenly spaced in opacity up to the largest
COMPARED_SIZE = 32  # pixels of the compared views, about what the sculpture was made for
COMPARED_RESOLUTION = 64  # a finer grid is coarsened for the comparison alone
COMPARED_VIEWS, COMPARED_ELEVATIONS = 6, (0.0, 0.5, -0.5)  # views a turn, radians


def matter_field(values: Float[np.ndarray, "2 Z Y X"], matter: Matter) -> Float[np.ndarray, "Z Y X"]:
    """What counts as solid, per world unit: all that intercepts light, or only as much of it as gives light back."""
    return values[0] if matter == "all" else values[0] * (1.0 - values[1])


@torch.no_grad()
def best_level(values: Float[np.ndarray, "2 Z Y X"], matter: Matter, tell: Tell = silent) -> tuple[float, float]:
    """The level at which the solid looks most like the volume's own views, and how much it does.

    Between voxels it is the opacity of a voxel step that is interpolated, as in the renderer and in the mesh. The solid
    is compared with renderings from 18 sides: its silhouettes where only bright matter
    counts, its surface painted with 1 - absorbance where all does. The measure is the sum of the smaller over the
    sum of the larger brightness (Ruzicka similarity; for black and white views intersection over union).

    Args:
        values: (2, Z, Y, X), attenuation per world unit and absorbance.
        matter: what counts as solid.
        tell: is handed the share that is done and what is done now, for a bar.

    Returns:
        Level, per world unit, and similarity in [0, 1]; (0, 0) for an empty volume.
    """
    grid, step, opacity = _compared(values, matter)
    highest = float(opacity.max())
    if highest <= 0.0:
        return 0.0, 0.0
    levels = highest * (torch.arange(LEVELS, device="cpu") + 0.5) / LEVELS
    found = _similarities(grid, opacity, levels, matter, tell)
    best = int(found.argmax())
    return float(-torch.log1p(-levels[best]) / step), float(found[best])


@torch.no_grad()
def similarity(
    values: Float[np.ndarray, "2 Z Y X"],
    matter: Matter,
    level: float,
    field: Float[np.ndarray, "Z Y X"] | None = None,
) -> float:
    """How much a solid looks like the volume's own views, as `best_level` measures it.

    Args:
        values: (2, Z, Y, X), attenuation per world unit and absorbance.
        matter: what counts as solid.
        level: where the solid ends: attenuation per world unit, or a value of `field`.
        field: another solid's, >= 0, on the voxels of `values`; None: the volume's own.
    """
    grid, step, opacity = _compared(values, matter)
    if field is None:
        return float(_similarities(grid, opacity, -torch.expm1(torch.tensor([-step * level])), matter))
    other = torch.from_numpy(field)
    if other.shape != opacity.shape:
        other = resampled(torch.stack([other, torch.zeros_like(other)]), opacity.shape)[0]
    return float(_similarities(grid, other, torch.tensor([level]), matter))


def _compared(
    values: Float[np.ndarray, "2 Z Y X"], matter: Matter
) -> tuple[Float[Tensor, "2 z y x"], float, Float[Tensor, "z y x"]]:
    """The grid that is compared, the edge of its voxels, and the opacity of such a step through what counts."""
    grid = torch.as_tensor(values)
    if max(grid.shape[1:]) > COMPARED_RESOLUTION:
        grid = resampled(grid, scaled_size(grid.shape[1:], COMPARED_RESOLUTION))
    step = 2.0 / max(grid.shape[1:])
    return grid, step, -torch.expm1(-step * torch.from_numpy(matter_field(grid.numpy(), matter)))


def _similarities(
    grid: Float[Tensor, "2 Z Y X"],
    field: Float[Tensor, "Z Y X"],
    levels: Float[Tensor, " L"],
    matter: Matter,
    tell: Tell = silent,
) -> Float[Tensor, " L"]:
    rotations = torch.cat([turntable(COMPARED_VIEWS, elevation).to(grid) for elevation in COMPARED_ELEVATIONS])
    volume = GridField(grid)
    renderer = for_few_views(AbsorptionRenderer(COMPARED_SIZE), volume, len(rotations))
    views = render_views(volume, renderer, rotations)[:, 0]
    channels = torch.stack([field, 1.0 - grid[1]])
    shared, joint = torch.zeros_like(levels), torch.zeros_like(levels)
    for done, (rotation, view) in enumerate(zip(rotations, views, strict=True)):
        tell(done / len(views), "comparing with the views")
        along = _along_rays(channels, rotation)
        densest = along[0].amax(dim=0)
        for k, level in enumerate(levels):
            shown = _shown(along, densest, float(level), matter)
            shared[k] += torch.minimum(shown, view).sum()
            joint[k] += torch.maximum(shown, view).sum()
    return shared / joint.clamp_min(1e-9)


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
