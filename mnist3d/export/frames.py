"""The frames of an orbit: rendered one after the other, coloured, on a background, with a caption.

Rotations -> uint8 images, never all in memory at once. Captions are handed over as text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image, ImageColor, ImageDraw, ImageFont
from torch import Tensor

from ..errors import ExportError
from ..rendering.renderer import MAX_IMAGE_SIZE, AbsorptionRenderer, for_few_views, render_views
from ..rendering.shading import Shading, StyleName, shaded_view
from ..storage import require
from ..storage.labels import printable
from ..volumes.base import Field
from ..volumes.wrappers import FrozenField, UnabsorbedField

GREY = "gray"
TRANSPARENT = "transparent"
CAPTION_SHARE = 8  # the caption's strip is an eighth of the image high,
CAPTION_LEAST = 14  # pixels, but never lower than this


@dataclass
class FrameStyle:
    """How frames look.

    Args:
        size: pixels along each edge of the image, without the caption.
        supersample: rendered this many times finer along each edge, then averaged.
        colormap: gray, or the name of one of matplotlib's.
        background: a colour's name or #rrggbb behind the sculpture, or transparent; None: as rendered, black.
        style: exact, or shaded: see `rendering.shading`; in its own colours, so without a colormap.
    """

    size: int = 256
    supersample: int = 1
    colormap: str = GREY
    background: str | None = None
    style: StyleName = "exact"

    def check(self) -> None:
        """Fail before any work is done.

        Raises:
            ExportError: a value out of range, an unknown colormap or colour.
        """
        if self.size * self.supersample > MAX_IMAGE_SIZE:
            most = MAX_IMAGE_SIZE // self.size
            raise ExportError(f"supersample={self.supersample}: must be <= {most} with size={self.size}")
        if self.style not in get_args(StyleName):
            raise ExportError(f"style={self.style}: must be one of {', '.join(get_args(StyleName))}")
        if self.style == "shaded" and self.colormap != GREY:
            raise ExportError(f"colormap={self.colormap}: must be {GREY} with style=shaded, which has its own colours")
        self.colours()
        self.background_colour()

    def colours(self) -> UInt8[np.ndarray, "256 3"]:
        """The colormap as a table."""
        if self.colormap == GREY:
            return np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
        colormaps = require("matplotlib", f"colormap {self.colormap}").colormaps
        if self.colormap not in colormaps:
            raise ExportError(
                f"colormap={self.colormap}: must be {GREY} or one of matplotlib's, such as inferno, viridis, cividis"
            )
        return (255.0 * colormaps[self.colormap](np.linspace(0.0, 1.0, 256))[:, :3]).round().astype(np.uint8)

    def background_colour(self) -> tuple[int, int, int] | None:
        """Red, green, blue; None for none or transparent."""
        if self.background in (None, TRANSPARENT):
            return None
        try:
            red, green, blue = ImageColor.getrgb(str(self.background))[:3]
        except ValueError:
            raise ExportError(
                f"background={self.background}: must be a colour such as white or #202428, or {TRANSPARENT}"
            ) from None
        return red, green, blue


def orbit_frames(
    volume: Field,
    renderer: AbsorptionRenderer,
    rotations: Float[Tensor, "B 3 3"],
    style: FrameStyle | None = None,
    captions: Sequence[str] | None = None,
) -> Iterator[UInt8[np.ndarray, "..."]]:
    """Each view as an image: (H, W) grey, (H, W, 3) in colour, (H, W, 4) with transparency.

    Args:
        volume: what is shown.
        renderer: its samples a ray and its quadrature are used; the size is the style's.
        rotations: one a frame.
        style: default a grey image of 256 pixels.
        captions: a text a frame, in a strip below the image.
    """
    style = style or FrameStyle()
    style.check()
    options = renderer.options
    fine = AbsorptionRenderer(
        style.size * style.supersample, options.samples_per_ray, options.quadrature, impl=renderer.impl
    )
    frozen = FrozenField(volume)
    shaded = style.style == "shaded"
    fine = for_few_views(fine, frozen, len(rotations) * ((1 if style.background is None else 2) + shaded))
    frames = _shaded(frozen, fine, rotations, style) if shaded else _exact(frozen, fine, rotations, style)
    for k, frame in enumerate(frames):
        if captions is not None:
            yield _captioned(frame, captions[k], style)
        elif style.colormap == GREY and style.background is None and not shaded:
            yield frame[..., 0]
        else:
            yield frame


def _exact(
    frozen: FrozenField, fine: AbsorptionRenderer, rotations: Float[Tensor, "B 3 3"], style: FrameStyle
) -> Iterator[UInt8[np.ndarray, "H W C"]]:
    """The renderer's views in the style's colours."""
    unabsorbed = None if style.background is None else FrozenField(UnabsorbedField(frozen))
    for rotation in rotations:
        image = _shrunk(render_views(frozen, fine, rotation[None]), style.supersample)
        if unabsorbed is None:
            yield style.colours()[_to_bytes(image)]
        else:
            covered = render_views(unabsorbed, fine, rotation[None])
            yield _on_background(image, _shrunk(covered, style.supersample), style)


def _shaded(
    frozen: FrozenField, fine: AbsorptionRenderer, rotations: Float[Tensor, "B 3 3"], style: FrameStyle
) -> Iterator[UInt8[np.ndarray, "H W C"]]:
    """Shaded views on the style's background."""
    shading = Shading(frozen)
    red, green, blue = style.background_colour() or (0, 0, 0)
    ground = None if style.background == TRANSPARENT else (red / 255.0, green / 255.0, blue / 255.0)
    for rotation in rotations:
        view = shaded_view(shading, fine, rotation, ground).movedim(-1, 0)
        if ground is None:  # averaged as the light that it is, so that what is empty has no colour to give
            light = F.avg_pool2d(torch.cat([view[:3] * view[3], view[3:]]), style.supersample)
            view = torch.cat([light[:3] / light[3].clamp_min(1e-6), light[3:]])
        else:
            view = F.avg_pool2d(view, style.supersample)
        yield _to_bytes(view.movedim(0, -1).numpy())


def _shrunk(images: Float[Tensor, "1 1 H W"], supersample: int) -> Float[np.ndarray, "h w"]:
    return F.avg_pool2d(images, supersample)[0, 0].numpy()


def _to_bytes(image: Float[np.ndarray, "*S"]) -> UInt8[np.ndarray, "*S"]:
    return np.rint(255.0 * np.clip(image, 0.0, 1.0)).astype(np.uint8)


def _on_background(
    image: Float[np.ndarray, "H W"], coverage: Float[np.ndarray, "H W"], style: FrameStyle
) -> UInt8[np.ndarray, "H W C"]:
    """What is intercepted in the colormap's colour, what passes through in the background's."""
    own = style.colours()[_to_bytes(image / np.maximum(coverage, 1e-6))]
    colour = style.background_colour()
    if colour is None:
        return np.concatenate([own, _to_bytes(coverage)[..., None]], axis=-1)
    share = coverage[..., None]
    return np.rint(share * own + (1.0 - share) * np.array(colour)).astype(np.uint8)


def _captioned(frame: UInt8[np.ndarray, "H W C"], caption: str, style: FrameStyle) -> UInt8[np.ndarray, "height W C"]:
    height = max(CAPTION_LEAST, frame.shape[0] // CAPTION_SHARE)
    colour = style.background_colour() or (0, 0, 0)
    ink = (0, 0, 0) if sum(colour) > 384 else (230, 230, 230)
    strip = Image.new("RGB", (frame.shape[1], height), colour)
    place = (frame.shape[1] / 2, height / 2)
    ImageDraw.Draw(strip).text(place, printable(caption), ink, ImageFont.load_default(round(0.7 * height)), anchor="mm")
    below = np.asarray(strip)
    if frame.shape[2] == 4:
        below = np.concatenate([below, np.full((*below.shape[:2], 1), 255, np.uint8)], axis=-1)
    return np.concatenate([frame, below])
