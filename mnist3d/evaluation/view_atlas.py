"""The pictures that people look at instead of numbers: the view atlas and the turntable.

A volume's views laid out and coloured by the class that the classifiers read, as uint8 arrays.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..geometry.rotations import map_rotations, turntable
from ..rendering.renderer import AbsorptionRenderer, for_few_views, render_views
from ..volumes.base import Field
from .classifiers import LEGIBLE, Classifiers, Reading

COLUMNS, ROWS = 24, 12  # cells of 15 degrees
FINE = 3  # the map is this many times finer than the thumbnails
ATLAS_VIEWS = COLUMNS * ROWS * (1 + FINE**2)  # that are rendered for both
THUMBNAIL = 40  # screen pixels
STRIP_THUMBNAIL = 72
STRIP_VIEWS = 18  # 20 degrees apart
STRIP_ELEVATIONS = (30, 0, -30)  # degrees
BACKGROUND, INK, FAINT = (18, 20, 26), (226, 228, 234), (140, 146, 160)
NO_CLASS = (46, 49, 58)
# Ten colours as far apart as ten can be, on a dark ground (after Trubetskoy 2017, "20 distinct colours")
PALETTE = (
    (230, 70, 85),
    (245, 140, 50),
    (250, 220, 60),
    (150, 210, 60),
    (50, 170, 85),
    (70, 220, 220),
    (70, 130, 240),
    (150, 90, 220),
    (240, 80, 220),
    (190, 150, 110),
)


def class_colour(index: int) -> tuple[int, int, int]:
    """The colour of a class; after ten classes they repeat, darker."""
    shade = 0.65 ** (index // len(PALETTE))
    red, green, blue = PALETTE[index % len(PALETTE)]
    return round(red * shade), round(green * shade), round(blue * shade)


def view_atlas(
    volume: Field, renderer: AbsorptionRenderer, classifiers: Classifiers | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """Every upright view on one sheet: longitude to the right, latitude upwards.

    On the left a thumbnail every 15 degrees; on the right the same map three times finer, each place in the
    colour of the class that is read there, the brighter the surer, and grey where none is.

    Args:
        volume: what is shown.
        renderer: makes the views.
        classifiers: read them; without, or with classifiers that know no classes, the map is left out.
    """
    width, height = COLUMNS * THUMBNAIL, ROWS * THUMBNAIL
    left, top, gap, bottom = 62, 64, 84, 100
    has_map = classifiers is not None and bool(classifiers.class_names)
    canvas = Image.new("RGB", (left + width + (gap + width if has_map else 0) + 24, top + height + bottom), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    views = render_views(volume, for_few_views(renderer, volume, ROWS * COLUMNS), map_rotations(ROWS, COLUMNS))
    for k, view in enumerate(views):
        row, column = divmod(k, COLUMNS)
        canvas.paste(_thumbnail(view, THUMBNAIL - 1), (left + column * THUMBNAIL, top + row * THUMBNAIL))
    _axes(draw, left, top, width, height, "What it looks like from each direction")
    if classifiers is not None and has_map:
        reading = classifiers.read(render_views(volume, renderer, map_rotations(ROWS * FINE, COLUMNS * FINE)))
        x = left + width + gap
        coloured = _coloured(reading).reshape(ROWS * FINE, COLUMNS * FINE, 3).astype(np.uint8)
        canvas.paste(Image.fromarray(coloured).resize((width, height), Image.Resampling.NEAREST), (x, top))
        share = float((reading.legible * _cell_areas(FINE)).sum())
        _axes(draw, x, top, width, height, f"What is read there: legible on {share:.0%} of the sphere")
        _legend(draw, classifiers.class_names, x, top + height + 52, width)
    return np.asarray(canvas)


def turntable_strip(
    volume: Field, renderer: AbsorptionRenderer, classifiers: Classifiers | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """Once around, from a little above, level and from a little below; under each view what is read there.

    Args:
        volume: what is shown.
        renderer: makes the views.
        classifiers: read them; without, nothing stands below the views.
    """
    left, top, caption = 78, 40, 22
    row_height = STRIP_THUMBNAIL + caption + 8
    size = (left + STRIP_VIEWS * STRIP_THUMBNAIL + 20, top + len(STRIP_ELEVATIONS) * row_height + 30)
    canvas = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    draw.text((left, 12), "Once around", INK, _font(16))
    for row, elevation in enumerate(STRIP_ELEVATIONS):
        views = render_views(volume, renderer, turntable(STRIP_VIEWS, math.radians(elevation)))
        reading = classifiers.read(views) if classifiers is not None and classifiers.class_names else None
        y = top + row * row_height
        draw.text((left - 10, y + STRIP_THUMBNAIL // 2), _degrees(elevation), FAINT, _font(14), anchor="rm")
        for k, view in enumerate(views):
            x = left + k * STRIP_THUMBNAIL
            canvas.paste(_thumbnail(view, STRIP_THUMBNAIL - 2), (x, y))
            if classifiers is not None and reading is not None and bool(reading.legible[k]):
                index = int(reading.label[k])
                box = (x, y + STRIP_THUMBNAIL, x + STRIP_THUMBNAIL - 3, y + STRIP_THUMBNAIL + caption - 4)
                draw.rectangle(box, tuple(int(value) for value in _coloured(reading)[k]))
                middle = (x + STRIP_THUMBNAIL / 2 - 1, y + STRIP_THUMBNAIL + (caption - 4) / 2)
                draw.text(middle, classifiers.class_names[index][:9], BACKGROUND, _font(14), anchor="mm")
    for k in range(STRIP_VIEWS):
        x = left + k * STRIP_THUMBNAIL + STRIP_THUMBNAIL / 2
        draw.text((x, size[1] - 18), _degrees(360 * k // STRIP_VIEWS), FAINT, _font(13), anchor="mm")
    return np.asarray(canvas)


def _cell_areas(fine: int) -> Float[Tensor, " B"]:
    """Each cell's share of the sphere: the map shows the poles too large."""
    rows, columns = ROWS * fine, COLUMNS * fine
    edge = torch.sin(math.pi / 2 - math.pi * torch.arange(rows + 1) / rows)
    return ((edge[:-1] - edge[1:]) / (2.0 * columns)).repeat_interleave(columns)


def _coloured(reading: Reading) -> Float[np.ndarray, "N 3"]:
    """From grey at no confidence to the class's colour at full."""
    label = reading.label.clamp_min(0).tolist()
    colours = np.array([class_colour(index) for index in label], dtype=np.float64)
    # Below legible hardly any colour, so that the eye sees the same border as the figures.
    sure = reading.confidence.double().numpy()[:, None]
    weight = np.where(sure > LEGIBLE, 0.45 + 0.55 * (sure - LEGIBLE) / (1.0 - LEGIBLE), 0.3 * sure)
    return (1.0 - weight) * np.array(NO_CLASS) + weight * colours


def _thumbnail(view: Float[Tensor, "1 H W"], size: int) -> Image.Image:
    brightness = (view[0].clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).numpy()
    return Image.fromarray(brightness).resize((size, size), Image.Resampling.BICUBIC)


def _axes(draw: ImageDraw.ImageDraw, x: int, y: int, width: int, height: int, title: str) -> None:
    draw.text((x, y - 40), title, INK, _font(18))
    for longitude in range(-180, 181, 45):
        at = x + width * (longitude + 180) / 360
        draw.line((at, y + height, at, y + height + 5), FAINT)
        draw.text((at, y + height + 8), _degrees(longitude), FAINT, _font(13), anchor="ma")
    for latitude in range(-90, 91, 30):
        at = y + height * (90 - latitude) / 180
        draw.line((x - 6, at, x - 1, at), FAINT)
        draw.text((x - 10, at), _degrees(latitude), FAINT, _font(13), anchor="rm")
    draw.text((x + width / 2, y + height + 28), "longitude (azimuth)", FAINT, _font(13), anchor="ma")
    draw.text((x, y - 16), "latitude (elevation), from above at the top", FAINT, _font(13))


def _legend(draw: ImageDraw.ImageDraw, names: list[str], x: int, y: int, width: int) -> None:
    """A coloured square for each class and for none, in as many rows as they need."""
    entries = [*((name, class_colour(k)) for k, name in enumerate(names)), ("none", NO_CLASS)]
    pitch = max(width // len(entries), 74 if max(map(len, names)) > 2 else 36)
    across = max(1, width // pitch)
    for k, (name, colour) in enumerate(entries):
        column, row = k % across, k // across
        at, down = x + column * pitch, y + row * 20
        draw.rectangle((at, down, at + 15, down + 15), colour)
        draw.text((at + 21, down + 7), name[:9], INK, _font(14), anchor="lm")


def _degrees(angle: int) -> str:
    return f"{angle}\N{DEGREE SIGN}"


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
