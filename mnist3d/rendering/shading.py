"""A volume as an object in the light of a lamp: for looking at, not for reading figures.

The renderer makes these views too: it is handed grids whose brightness is the shading. The exact view, which the
discriminator sees and every figure is about, is `AbsorptionRenderer`'s.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ConfigError
from ..geometry.arrays import ArrayOrList, without_autocast
from ..geometry.grids import grid_size, scaled_size, voxel_centres
from ..geometry.rotations import as_rotations
from ..storage.memory import check_fits
from ..volumes.base import Field
from ..volumes.resampling import resampled
from ..volumes.voxel_grid import VoxelGrid
from ..volumes.wrappers import GridField
from .renderer import AbsorptionRenderer, render_views

StyleName = Literal["exact", "shaded"]
Colour = tuple[float, float, float]

BRIGHT: Colour = (1.0, 0.95, 0.84)  # ivory,
DARK: Colour = (0.24, 0.36, 0.57)  # and blue for black matter, which black would hide
BLACK: Colour = (0.0, 0.0, 0.0)
FIELD_RESOLUTION = 64  # voxels along each edge of a field that is no grid, unless told otherwise
MOST_VOXELS = 128  # along the longest edge: a finer grid is averaged, or turning it would take seconds a view
BYTES_OF_A_VOXEL = 64  # while it is made; half of that afterwards

# Lengths are in world units, so that the shading of a volume does not depend on its resolution.
THICKNESS = 0.04  # opacity is that of so much matter: a stroke of a digit is some three times as thick
SMOOTHING = 0.03  # standard deviation of the blur before the fine gradient,
LEAST_SMOOTHING = 0.8  # voxels, but never less: a gradient over two voxels is noise
WIDE = 0.12  # that of the blur that gives occlusion and the form at large: the thickness of a stroke
FORM = 0.8  # weight of the form at large in a normal, to 1 of the fine one
HAZE = 0.18  # matter of this share of the volume's typical opacity shows half as much as it would
FLAT = 0.02  # share of the steepest gradient below which a place has no side that faces anywhere

LIGHT = (-0.5, -0.5, -0.70710678)  # towards the lamp, in the camera's axes: above left of the eye
AMBIENT, KEY, SHEEN = 0.27, 0.84, 0.14
SHININESS = 4  # times squared: the 16th power
OPEN, DARKEST = 2.2, 0.2  # occlusion: 1 where up to some half of the neighbourhood is filled; its least
FADE = 0.35  # share of the light that the far end of the ball gets less than the near end


class Shading:
    """What of a shaded view does not depend on the direction; make it once for each volume.

        opacity   = 1 - exp(-attenuation * THICKNESS), 0 outside the unit ball
        normal    = -(grad(blur(opacity, SMOOTHING)), scaled, + FORM * grad(blur(opacity, WIDE)), scaled), unit length
        occlusion = clamp(OPEN * (1 - blur(opacity, WIDE)), DARKEST, 1)

    Matter that is thin beside the rest of the volume is shown thinner than it is, as haze looks like dirt in the light:
    attenuation is multiplied by o^2 / (o^2 + (HAZE * m)^2), where o is its opacity and m the volume's typical one, the
    mean of o weighted by o. So a shaded view is not the exact view with colours: what the haze alone hides is seen.

    Args:
        field: any; a grid is taken as it is or averaged, a field is sampled.
        resolution: voxels along the longest edge, 1 to 1024; default a grid's own, at most 128, and 64 for a field.

    Raises:
        ConfigError: the voxels do not fit into the memory that is free.
        ValueError: a resolution out of range, or a field without a grid whose values are not finite or out of range.

    Gradients:
        None.
    """

    @torch.no_grad()
    def __init__(self, field: Field, resolution: int | None = None) -> None:
        grid = _grid(field, resolution)
        with without_autocast(grid):
            opacity = _inside_ball(-torch.expm1(-THICKNESS * grid[0]))
            typical = opacity.square().sum() / opacity.sum().clamp_min(1e-12)
            kept = opacity.square()
            kept = kept / (kept + (HAZE * typical) ** 2).clamp_min(1e-24)
            # infinite attenuation is legitimate, and infinity times nothing must be nothing
            self.attenuation = torch.where(kept > 0.0, grid[0] * kept, 0.0)
            opacity = opacity * kept
            voxel = 2.0 / max(opacity.shape)
            fine, wide = (_blurred(opacity, sigma) for sigma in (max(SMOOTHING, LEAST_SMOOTHING * voxel), WIDE))
            self.normal = _unit(_outward(fine) + FORM * _outward(wide))
            occlusion = (OPEN * (1.0 - wide)).clamp_(DARKEST, 1.0)
            absorbance = grid[1].clamp(0.0, 1.0)
            self.bright, self.dark = (1.0 - absorbance) * occlusion, absorbance * occlusion

    def brightness(self, rotation: Float[Tensor, "3 3"]) -> Float[Tensor, "Z Y X"]:
        """Of every voxel under the lamp, before its occlusion; the lamp stays with the eye.

            AMBIENT + KEY * (1/2 + 1/2 normal . light)^2 + SHEEN * (normal . half)^16, less with the distance

        Args:
            rotation: x_camera = rotation @ x_world.

        Source:
            Wrapped and squared Lambert: Mitchell, McTaggart and Green, "Shading in Valve's Source Engine" (2006). The
            half vector: Blinn, SIGGRAPH 1977.
        """
        rotation = rotation.to(self.normal)
        light = torch.tensor(LIGHT)
        half = light - torch.tensor([0.0, 0.0, 1.0])
        towards = torch.stack([light, half / half.norm()]) @ rotation
        shape = self.normal.shape[1:]
        facing, mirrored = (towards @ self.normal.reshape(3, -1)).reshape(2, *shape)
        shine = mirrored.clamp_min_(0.0)
        for _ in range(SHININESS):
            shine = shine.square_()
        lit = facing.add_(1.0).mul_(0.5).square_().mul_(KEY).add_(shine, alpha=SHEEN).add_(AMBIENT)
        z, y, x = (voxel_centres(n).to(lit) for n in shape)
        away = rotation[2]
        farther = (away[2] * z)[:, None, None] + (away[1] * y)[:, None] + away[0] * x
        return lit.mul_(farther.add_(1.0).mul_(-0.5 * FADE).add_(1.0))


@torch.no_grad()
def shaded_view(
    shading: Shading,
    renderer: AbsorptionRenderer,
    rotation: Float[Tensor, "3 3"] | ArrayOrList,
    background: Colour | None = BLACK,
) -> Float[Tensor, "H W C"]:
    """A view in colour, on the CPU: bright matter ivory, black matter blue, the nearer the brighter.

    Args:
        shading: of the volume.
        renderer: its image size, samples a ray and quadrature are used.
        rotation: x_camera = rotation @ x_world.
        background: red, green and blue in [0, 1] behind the volume; None: transparent. On black it is a third faster.

    Returns:
        (H, W, 3) in [0, 1]; without a background (H, W, 4), the colour of what is there and the share of each ray that
        it intercepts.

    Raises:
        ValueError: the rotation's shape is not (3, 3).
        ConfigError: the view does not fit into the memory that is free.
    """
    rotation = as_rotations(rotation, shading.normal)
    if rotation.shape != (3, 3):
        raise ValueError(f"rotation is {tuple(rotation.shape)}: a shaded view is made of one rotation, (3, 3)")

    def view(brightness: Float[Tensor, "Z Y X"]) -> Float[Tensor, "H W 1"]:
        absorbance = brightness.neg().add_(1.0).clamp_(0.0, 1.0)
        field = GridField(torch.stack([shading.attenuation, absorbance]))
        return render_views(field, renderer, rotation)[0, 0, :, :, None]

    lit = shading.brightness(rotation)
    colour = view(shading.bright * lit) * torch.tensor(BRIGHT) + view(shading.dark * lit) * torch.tensor(DARK)
    if background == BLACK:
        return colour.clamp_(0.0, 1.0)
    covered = view(torch.ones_like(lit))
    if background is None:
        return torch.cat([colour / covered.clamp_min(1e-6), covered], dim=-1).clamp_(0.0, 1.0)
    return (colour + (1.0 - covered) * torch.tensor(background)).clamp_(0.0, 1.0)


def _grid(field: Field, resolution: int | None) -> Float[Tensor, "2 Z Y X"]:
    """The field's voxels, float32 on the CPU."""
    grid = field.dense()
    own = FIELD_RESOLUTION if grid is None else min(max(grid.shape[1:]), MOST_VOXELS)
    shape = scaled_size(
        (1, 1, 1) if grid is None else grid.shape[1:], max(grid_size(own if resolution is None else resolution))
    )
    what = f"style=shaded: the shading of {math.prod(shape):,} voxels takes"
    check_fits(BYTES_OF_A_VOXEL * math.prod(shape), what, "use style=exact, or free some", ConfigError)
    if grid is None:
        grid = VoxelGrid.from_field(field, shape).dense()
    elif grid.shape[1:] != shape:
        grid = resampled(grid, shape)
    return grid.detach().float().cpu()


def _inside_ball(values: Float[Tensor, "Z Y X"]) -> Float[Tensor, "Z Y X"]:
    """Nothing outside the unit ball, where no ray goes; its border is a voxel soft."""
    z, y, x = (voxel_centres(n).to(values) for n in values.shape)
    radius = (z.square()[:, None, None] + y.square()[:, None] + x.square()).sqrt()
    return values * ((1.0 - radius) * (max(values.shape) / 2.0) + 0.5).clamp_(0.0, 1.0)


def _blurred(values: Float[Tensor, "Z Y X"], sigma: float) -> Float[Tensor, "Z Y X"]:
    """The convolution with a normal distribution, nothing lying outside the grid: a product with a matrix an axis.

    Args:
        values: one a voxel.
        sigma: its standard deviation, world units.
    """
    weights = []
    for n in values.shape:
        places = voxel_centres(n)
        density = torch.exp(-0.5 * ((places[:, None] - places) / sigma).square())
        # At least the voxel itself, where voxels are larger than the blur.
        weights.append((density * (2.0 / n / (sigma * math.sqrt(2.0 * math.pi)))).clamp_max(1.0).to(values))
    along_z, along_y, along_x = weights
    return torch.tensordot(along_z, along_y @ values @ along_x.mT, 1)


def _outward(values: Float[Tensor, "Z Y X"]) -> Float[Tensor, "3 Z Y X"]:
    """Minus the gradient, xyz, as a share of the steepest."""
    padded = torch.nn.functional.pad(values, (1, 1, 1, 1, 1, 1))
    z, y, x = values.shape
    inner = slice(1, -1)
    gradient = torch.stack(
        [
            (padded[inner, inner, :-2] - padded[inner, inner, 2:]) * x,
            (padded[inner, :-2, inner] - padded[inner, 2:, inner]) * y,
            (padded[:-2, inner, inner] - padded[2:, inner, inner]) * z,
        ]
    )
    return gradient / gradient.square().sum(dim=0).max().sqrt().clamp_min(1e-12)


def _unit(vectors: Float[Tensor, "3 Z Y X"]) -> Float[Tensor, "3 Z Y X"]:
    """Of unit length, and shorter where there is hardly any: inside, and where nothing is."""
    length = vectors.square().sum(dim=0).sqrt()
    return vectors / (length + FLAT)
