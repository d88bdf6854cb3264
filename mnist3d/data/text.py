"""Letters as images: bright on black, as large as MNIST's digits, in the font that Pillow contains.

One function, `draw_text`. For other fonts and layouts use image files.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..errors import DataError, shown
from .images import shrunk_into_square

HEIGHT = 20 / 28  # of the square, as MNIST's digits
DIAGONAL = 0.97  # of the square at most, so that the ball cuts no corner off
UNKNOWN = "\uffff"  # drawn as the font's sign for a letter that it lacks
OVERSAMPLING, FINEST = 8, 2048  # pixels are drawn that many times finer, up to so many along an edge
MOST_LETTERS = 30


def draw_text(text: str, image_size: int) -> Float[Tensor, "1 H W"]:
    """A text, as large as the ball lets it be, at most as high as a digit of MNIST; brightness in [0, 1].

    Args:
        text: 1 to 30 letters, on one line.
        image_size: pixels along each edge.

    Raises:
        DataError: a letter that the font lacks, nothing to draw, or a Pillow without scalable fonts.
    """
    if len(text) > MOST_LETTERS:
        raise DataError(f"text={shown(text)!r}: {len(text)} letters; must be 1 to {MOST_LETTERS}")
    pixels = image_size * max(1, min(OVERSAMPLING, FINEST // image_size))
    font = ImageFont.load_default(pixels)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise DataError(f"text={text!r}: this Pillow was built without FreeType and cannot draw letters; use image")
    unknown = _drawn(UNKNOWN, font).tobytes()
    for letter in text:
        if _drawn(letter, font).tobytes() == unknown:
            raise DataError(f"text={text!r}: the font that Pillow contains has no {letter!r}; use image")
    drawing = _drawn(text, font)
    box = drawing.getbbox()
    if box is None:
        raise DataError(f"text={text!r}: there is nothing to draw; must be one or more letters")
    drawing = drawing.crop(box)
    share = min(HEIGHT * pixels / drawing.height, DIAGONAL * pixels / math.hypot(drawing.width, drawing.height))
    size = max(1, round(drawing.width * share)), max(1, round(drawing.height * share))
    drawing = drawing.resize(size, Image.Resampling.LANCZOS)
    square = Image.new("L", (pixels, pixels))
    square.paste(drawing, ((pixels - drawing.width) // 2, (pixels - drawing.height) // 2))
    brightness = torch.tensor(np.asarray(square), dtype=torch.float32)[None, None] / 255.0
    return shrunk_into_square(brightness, image_size)[0]


def _drawn(text: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    left, top, right, bottom = font.getbbox(text)
    drawing = Image.new("L", (max(math.ceil(right - left), 1), max(math.ceil(bottom - top), 1)))
    ImageDraw.Draw(drawing).text((-left, -top), text, fill=255, font=font)
    return drawing
