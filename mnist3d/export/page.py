"""One HTML file that shows a sculpture in any browser: no server, no network, nothing to install.

The voxels as text inside `page.html`, which marches rays through them as the renderer does. The page draws with
WebGL2 and holds no code of others.
"""

import base64
import html
import json
import re
from importlib import resources

import torch

from ..errors import ExportError
from ..rendering import shading
from ..rendering.renderer import RendererOptions
from ..storage.labels import printable
from ..volumes.base import Field
from ..volumes.wrappers import FrozenField
from .sampling import sampled
from .shares import Tell, part, silent

FIELD_RESOLUTION = 64  # voxels along each edge of a volume that is no grid, unless told otherwise
BYTES_OF_A_VOXEL = 12  # besides the voxels: their bytes, and the text of them on its way into the page
MAX_RESOLUTION = 256  # 45 MB of page; what a phone's graphics processor still turns

_SHADING = {  # what the page's shaded view takes from the renderer's
    "bright": shading.BRIGHT,
    "dark": shading.DARK,
    "light": shading.LIGHT,
    "ambient": shading.AMBIENT,
    "key": shading.KEY,
    "sheen": shading.SHEEN,
    "power": 2**shading.SHININESS,
    "fade": shading.FADE,
    "thickness": shading.THICKNESS,
    "smoothing": shading.SMOOTHING,
    "least_smoothing": shading.LEAST_SMOOTHING,
    "wide": shading.WIDE,
    "form": shading.FORM,
    "haze": shading.HAZE,
    "flat": shading.FLAT,
    "open": shading.OPEN,
    "darkest": shading.DARKEST,
    "most_voxels": shading.MOST_VOXELS,
}


def page_html(
    volume: Field, options: RendererOptions, title: str, resolution: int | None = None, tell: Tell = silent
) -> str:
    """The whole page.

    Opacity of one step and absorbance are stored with 8 bits a voxel, the opacity as its square root: 2.7 bytes of page
    a voxel. The page's view is the renderer's with quadrature="trilinear". What its shaded view needs besides, the page
    computes when that is first asked for, up to 128 voxels along the longest edge.

    Args:
        volume: any; a grid is stored as it is, a field is sampled.
        options: of the renderer that belongs to the volume; its steps a ray are kept.
        title: shown on the page.
        resolution: voxels along the longest edge, 2 to 256; default the grid's own, at most 256, or 64 for a field.
        tell: is handed the share that is done and what is done now, for a bar.

    Raises:
        ExportError: a resolution outside its range.
    """
    if resolution is not None and not 2 <= resolution <= MAX_RESOLUTION:
        raise ExportError(f"resolution={resolution}: must be in [2, {MAX_RESOLUTION}]")
    volume = FrozenField(volume)  # its grid is found once
    native = volume.dense()
    longest = None if native is None else max(native.shape[1:])
    kept = None if longest is None else min(longest, MAX_RESOLUTION)
    grid = sampled(volume, resolution or kept, FIELD_RESOLUTION, besides=BYTES_OF_A_VOXEL, tell=part(tell, 0.0, 0.7))
    tell(0.7, "packing the voxels")
    steps = options.samples_per_ray or longest or max(grid.shape[1:])
    grid[0].mul_(-2.0 / steps).expm1_().neg_()  # in place, as it is large: the opacity of a step
    grid.clamp_(0.0, 1.0)[0].sqrt_()
    data = base64.b64encode(grid.mul_(255.0).round_().to(torch.uint8).numpy().tobytes()).decode()
    depth, height, width = grid.shape[1:]
    page = resources.files(__package__ or "").joinpath("page.html").read_text(encoding="utf-8")
    values = {
        "__TITLE__": html.escape(printable(title)),
        "__SIZE__": f"[{width}, {height}, {depth}]",
        "__STEPS__": str(steps),
        "__SHADING__": json.dumps(_SHADING),
        "__DATA__": data,
    }
    # in one pass: a title may hold anything, the other marks too
    return re.sub("|".join(values), lambda mark: values[mark.group()], page)
