"""What an image stands on, and bright on black made of it: empty space is black.

The ground is read off the border. It decides about inversion where nobody else does, and it fills the square around
an image that is not square.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from .image_files import ImageFile
from .options import Invert

if TYPE_CHECKING:
    from PIL.Image import Image

Ground = Literal["white", "black"]
BORDER = 20  # the border is an edge's length / BORDER wide, or one pixel
# Brightness, [0, 1]. With these no image of Fashion-MNIST, whose clothes touch the border, stands on white ground.
NEAR = 0.2  # a plain border differs from its median by no more,
PLAIN = 0.8  # in this share of its pixels
WHITE, BLACK = 0.55, 0.45  # medians beyond these are grounds, those between are grey
CONTRAST = 0.1  # an image with less shows nothing, so nothing can be said of its ground
# Mean brightness of what is drawn on nothing: an icon of darker ink would be lost on black, a brighter one is fine.
INK, LIGHT = 0.25, 0.5


def ground_of(image: ImageFile) -> Ground | None:
    """White, black, or None where the border does not say.

    What stands on nothing (a transparent border) counts as drawn on white if it is dark, on black if it is bright.
    """
    grey = np.asarray(image.grey)  # of 8 bits: as numbers it would take eight times the memory
    there = np.ones(grey.shape, bool) if image.opacity is None else np.asarray(image.opacity) >= 128
    if not there.any():
        return None
    border = _border(grey.shape)
    if there[border].mean() < 0.5:
        mean = grey[there].mean() / 255.0
        return "white" if mean < INK else "black" if mean > LIGHT else None
    low, high = grey[there].min() / 255.0, grey[there].max() / 255.0
    if high - low < CONTRAST:
        return None
    return _plain(grey[border & there] / 255.0, low, high)


def ground_of_all(images: np.ndarray) -> Ground | None:
    """Of a set that was made to be one: that of most of its images; None where they disagree.

    Args:
        images: (N, rows, columns), bytes.
    """
    some = images[:: max(1, len(images) // 1000)]
    border = _border(images.shape[1:])
    ranges = [(each.min() / 255.0, each.max() / 255.0) for each in some]
    found = Counter(
        _plain(each[border] / 255.0, low, high)
        for each, (low, high) in zip(some, ranges, strict=True)
        if high - low >= CONTRAST
    )
    return next((ground for ground in ("white", "black") if found[ground] > len(some) / 2), None)


def most_common(grounds: Sequence[Ground | None]) -> Ground | None:
    """What images without a ground of their own take over; None unless half of all have one."""
    count = Counter(grounds)
    if count[None] > len(grounds) / 2 or count["white"] == count["black"]:
        return None
    return "white" if count["white"] > count["black"] else "black"


def is_inverted(invert: Invert, ground: Ground | None) -> bool:
    """Whether an image on such a ground is inverted."""
    return ground == "white" if invert == "auto" else invert


def seen(image: ImageFile, inverted: bool, ground: Ground | None) -> "Image":
    """In grey; what is transparent is black, as nothing is there.

        brightness = 1 - grey / paper      inverted; paper: the border's median on white ground, else 1

    So paper becomes black, whatever its shade, and ink stays as bright as it was dark.
    """
    from PIL import Image

    grey = image.grey
    if image.opacity is not None:
        grey = Image.composite(grey, Image.new("L", grey.size, 255 if inverted else 0), image.opacity)
    if not inverted:
        return grey
    paper = _level(grey) if ground == "white" else 255
    return grey.point([255 - min(255, round(255 * value / paper)) for value in range(256)])


def squared(grey: "Image", ground: Ground | None, size: int | None = None) -> "Image":
    """The whole image, centred in a square; around it is what it stands on, or black.

    Args:
        grey: what `seen` gives.
        ground: of the image; None: the square is black.
        size: pixels along each edge of the square; None: the longer edge of the image.
    """
    from PIL import ImageOps

    edge = max(grey.size) if size is None else size
    return ImageOps.pad(grey, (edge, edge), color=0 if ground is None else _level(grey))


def _level(grey: "Image") -> int:
    values = np.asarray(grey)
    return int(np.median(values[_border(values.shape)]))


def _border(shape: tuple[int, ...]) -> np.ndarray:
    """Which pixels are the outermost, at least one around."""
    width = max(1, min(shape) // BORDER)
    inside = np.zeros(shape, bool)
    inside[width:-width, width:-width] = True
    return ~inside


def _plain(border: np.ndarray, low: float, high: float) -> Ground | None:
    """Of the border's brightness, and the darkest and the brightest of the whole image."""
    median = float(np.median(border))
    if (np.abs(border - median) <= NEAR).mean() < PLAIN:
        return None
    if median > WHITE:  # white on light blue would be lost if it were inverted
        return "white" if median - low >= high - median else None
    return "black" if median < BLACK else None
