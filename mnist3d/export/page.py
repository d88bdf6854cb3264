"""One HTML file that shows a sculpture in any browser: no server, no network, nothing to install.

What it is: the voxels as text inside `page.html`, which marches rays through them as the renderer does. What it is not:
it knows no runs; the page draws with WebGL2 and holds no code of others.
"""

import base64
import html
import re
from importlib import resources

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..errors import ExportError
from ..geometry.grids import voxel_centres
from ..rendering.renderer import RendererOptions
from ..volumes.base import Field

FIELD_RESOLUTION = 64  # voxels along each edge of a volume that is no grid, unless told otherwise
MAX_RESOLUTION = 256  # 45 MB of page; what a phone's graphics processor still turns
CHUNK = 2**18  # points that a field is asked for at once


def page_html(volume: Field, options: RendererOptions, title: str, resolution: int | None = None) -> str:
    """The whole page.

    Opacity of one step and absorbance are stored with 8 bits a voxel, the opacity as its square root: 2.7 bytes of page
    a voxel. The page's picture is the renderer's with quadrature="trilinear".

    Args:
        volume: any; a grid is stored as it is, a field is sampled.
        options: of the renderer that belongs to the volume; its steps a ray are kept.
        title: shown on the page.
        resolution: voxels along each edge, 2 to 256; default the grid's own, at most 256, or 64 for a field.

    Raises:
        ExportError: a resolution outside its range.
    """
    if resolution is not None and not 2 <= resolution <= MAX_RESOLUTION:
        raise ExportError(f"resolution={resolution}: allowed are 2 to {MAX_RESOLUTION}")
    grid = _voxels(volume, resolution)
    native = volume.dense()
    steps = options.samples_per_ray or (max(grid.shape[1:]) if native is None else max(native.shape[1:]))
    opacity = -torch.expm1(-grid[0] * (2.0 / steps))
    channels = torch.stack([opacity.clamp(0.0, 1.0).sqrt(), grid[1].clamp(0.0, 1.0)])
    data = base64.b64encode((channels * 255.0).round().to(torch.uint8).numpy().tobytes()).decode()
    depth, height, width = grid.shape[1:]
    page = resources.files(__package__ or "").joinpath("page.html").read_text(encoding="utf-8")
    values = {
        "__TITLE__": html.escape(title),
        "__SIZE__": f"[{width}, {height}, {depth}]",
        "__STEPS__": str(steps),
        "__DATA__": data,
    }
    # in one pass: a title may hold anything, the other marks too
    return re.sub("|".join(values), lambda mark: values[mark.group()], page)


@torch.no_grad()
def _voxels(volume: Field, resolution: int | None) -> Float[Tensor, "2 Z Y X"]:
    """The grid on the CPU, resampled where it has to be."""
    grid = volume.dense()
    if grid is None:
        return _sampled(volume, resolution or FIELD_RESOLUTION)
    grid = grid.detach().float().cpu()
    if resolution is None and max(grid.shape[1:]) <= MAX_RESOLUTION:
        return grid
    return _resampled(grid, resolution or MAX_RESOLUTION)


def _sampled(volume: Field, resolution: int) -> Float[Tensor, "2 Z Y X"]:
    """A field, asked at the voxels' centres."""
    device = volume.like().device
    centre = voxel_centres(resolution).float()
    z, y, x = torch.meshgrid(centre, centre, centre, indexing="ij")
    points = torch.stack([x, y, z], dim=-1).reshape(-1, 3)
    parts = [torch.stack(volume(part.to(device))).float().cpu() for part in points.split(CHUNK)]
    return torch.cat(parts, dim=1).reshape(2, resolution, resolution, resolution)


def _resampled(grid: Float[Tensor, "2 Z Y X"], resolution: int) -> Float[Tensor, "2 z y x"]:
    """Area means where it shrinks, trilinear where it grows; an absorbance counts as much as its attenuation."""
    finite = grid[0].clamp_max(torch.finfo(torch.float32).max / 1e6)
    weighted = torch.stack([finite, finite * grid[1]])[None]
    shrinks = max(grid.shape[1:]) > resolution
    if shrinks:
        mean = F.adaptive_avg_pool3d(weighted, resolution)
    else:
        mean = F.interpolate(weighted, [resolution] * 3, mode="trilinear")
    attenuation, absorbed = mean[0]
    return torch.stack([attenuation, torch.where(attenuation > 0.0, absorbed / attenuation, 0.0)])
