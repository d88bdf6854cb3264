"""Views as a page sees them: exact, or of an object in the light of a lamp; whole, or their middle from near by.

Pure functions. When a view is drawn, and what it may cost, is the render thread's affair.
"""

import copy

import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from ..rendering.pictures import to_uint8
from ..rendering.renderer import AbsorptionRenderer, RendererOptions
from ..rendering.shading import Shading, shaded_view
from ..volumes.base import Field, grid_shape
from ..volumes.wrappers import NO_CUT, CutField, GridField
from .scene import MAX_SIZE, Snapshot, View

MOST_OF_A_FIELD = 512  # pixels of the whole view of a field that is no grid: four times as many take seconds


def magnified(size: int, zoom: float, most: int = MAX_SIZE) -> tuple[int, int]:
    """How large the whole view is of which the middle is shown, and how large its middle is; pixels.

    The two differ by an even number, or the middle of the ball would lie half a pixel off.

    Args:
        size: of the middle, where the whole view does not get too large.
        zoom: the whole view's edge to the middle's, >= 1.
        most: of the whole view.
    """
    most = max(most, size)
    shown = max(1, min(size, round(most / zoom)))
    return shown + 2 * min(round((zoom - 1.0) * shown / 2.0), (most - shown) // 2), shown


@torch.no_grad()
def rendered_view(
    snapshot: Snapshot, options: RendererOptions, view: View, size: int | None = None
) -> Float[Tensor, "1 1 S S"]:
    """What our renderer shows, in [0, 1].

    Args:
        snapshot: of what.
        options: quadrature and steps a ray, which belong to the volume.
        view: from where; its style does not matter.
        size: pixels; default the view's.
    """
    volume: Field = snapshot.volume
    if _altered(view):
        volume = _as_the_sliders_want(volume, view)
    whole, shown = magnified(
        size or view.size, view.zoom, MAX_SIZE if grid_shape(snapshot.volume) is not None else MOST_OF_A_FIELD
    )
    renderer = AbsorptionRenderer(whole, options.samples_per_ray, options.quadrature)
    seen = _middle(renderer(volume, view.rotation), shown)
    return (seen * view.exposure).clamp_(0.0, 1.0)


@torch.no_grad()
def lit_view(shading: Shading, options: RendererOptions, view: View, size: int | None = None) -> Float[Tensor, "S S 3"]:
    """A shaded view in [0, 1], on black; the sliders act on what the shading shows.

    Args:
        shading: of the whole volume; nothing of it is computed anew for a slider or a direction.
        options: quadrature and steps a ray.
        view: from where; its style does not matter.
        size: pixels; default the view's.
    """
    if _altered(view):
        grid = torch.stack([shading.attenuation, torch.zeros_like(shading.attenuation)])
        cut = _as_the_sliders_want(GridField(grid), view).dense()
        assert cut is not None
        shading = copy.copy(shading)
        shading.attenuation = cut[0]
    whole, shown = magnified(size or view.size, view.zoom)
    renderer = AbsorptionRenderer(whole, options.samples_per_ray, options.quadrature)
    seen = _middle(shaded_view(shading, renderer, view.rotation).movedim(-1, 0), shown).movedim(0, -1)
    return (seen * view.exposure).clamp_(0.0, 1.0)


def drawn_view(
    snapshot: Snapshot, options: RendererOptions, view: View, size: int | None = None, shading: Shading | None = None
) -> UInt8[ndarray, "S S *C"]:
    """The view in its style, in whole numbers from 0 to 255: grey, or red, green and blue.

    Args:
        snapshot: of what.
        options: quadrature and steps a ray.
        view: from where, and in which style.
        size: pixels; default the view's.
        shading: of the snapshot, where there is one already.
    """
    if view.style == "exact":
        return to_uint8(rendered_view(snapshot, options, view, size)[0, 0])
    return to_uint8(lit_view(shading or Shading(snapshot.volume), options, view, size))


def _altered(view: View) -> bool:
    return view.scale != 1.0 or view.cut > NO_CUT


def _as_the_sliders_want(volume: Field, view: View) -> CutField:
    normal = view.rotation[2] if view.cut_normal is None else torch.tensor(view.cut_normal)
    return CutField(volume, view.scale, normal, view.cut)


def _middle(seen: Float[Tensor, "*C S S"], shown: int) -> Float[Tensor, "*C s s"]:
    edge = (seen.shape[-1] - shown) // 2
    return seen[..., edge : edge + shown, edge : edge + shown]
