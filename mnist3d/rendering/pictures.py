"""Views of a volume as uint8 pictures: one view, a contact sheet, a strip.

Floats in [0, 1] laid out for people to look at; no files are written here.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ..geometry.rotations import PoseOptions, sample_rotations
from ..volumes.base import Field
from .renderer import AbsorptionRenderer, render_views
from .shading import Shading, StyleName, shaded_view

SHEET_VIEWS = 40
BACKGROUND = 40  # dark grey
SHEET_SEED = 1  # the same poses in every sheet, so that a run's sheets can be compared


def to_uint8(images: Float[Tensor, "*B H W"]) -> UInt8[np.ndarray, "*B H W"]:
    """Brightness in [0, 1] as whole numbers from 0 to 255, rounded."""
    return (images.detach().clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).cpu().numpy()


def contact_sheet(
    images: Float[Tensor, "B C H W"], columns: int | None = None, magnify: int = 3, gap: int = 2
) -> UInt8[np.ndarray, "height width *C"]:
    """All images in rows, on dark grey, so that a black image can be told from an empty place.

    Args:
        images: brightness, or red, green and blue, in [0, 1]; at least one.
        columns: images in a row; default the nearest to a square.
        magnify: screen pixels along each edge of a pixel, at least 1.
        gap: screen pixels between images.

    Returns:
        (height, width), of colours (height, width, 3).

    Raises:
        ValueError: no images.
    """
    count = len(images)
    if count == 0:
        raise ValueError("images is empty: a contact sheet needs at least one")
    columns = columns or math.ceil(math.sqrt(count))
    height, width = (magnify * edge + gap for edge in images.shape[2:])
    channels = images.shape[1:2] if images.shape[1] > 1 else ()
    sheet = np.full((math.ceil(count / columns) * height + gap, columns * width + gap, *channels), BACKGROUND, np.uint8)
    for k, image in enumerate(images):  # one at a time: enlarged, all of them are much larger than the sheet
        row, column = divmod(k, columns)
        pixels = np.moveaxis(to_uint8(image), 0, -1) if channels else to_uint8(image[0])
        large = pixels.repeat(magnify, axis=0).repeat(magnify, axis=1)
        top, left = row * height + gap, column * width + gap
        sheet[top : top + len(large), left : left + large.shape[1]] = large
    return sheet


def sheet_views(
    volume: Field, renderer: AbsorptionRenderer, poses: PoseOptions | None = None, style: StyleName = "exact"
) -> Float[Tensor, "B C H W"]:
    """The views of a contact sheet: the same poses for all volumes sculpted with the same pose distribution.

    Args:
        volume: any.
        renderer: makes the views.
        poses: the pose distribution; default the options' own.
        style: exact, one channel; or shaded, red, green and blue on black.
    """
    rotations = sample_rotations(SHEET_VIEWS, torch.Generator().manual_seed(SHEET_SEED), poses)
    if style == "exact":
        return render_views(volume, renderer, rotations)
    shading = Shading(volume)
    return torch.stack([shaded_view(shading, renderer, rotation).movedim(-1, 0) for rotation in rotations])
