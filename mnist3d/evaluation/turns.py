"""Volumes below each other, each once around its vertical axis: one strip of views a volume, as a uint8 array.

Under each view stands what is read in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from .classifiers import Reading
from .view_atlas import (
    BACKGROUND,
    FAINT,
    INK,
    _degrees,
    _font,
    _thumbnail,
    class_colour,
)

THUMBNAIL, LEFT, TOP, CAPTION, BETWEEN, MARGIN = 66, 190, 26, 18, 10, 16  # screen pixels
# Of a title: size, letters in a line of that size, lines at most, screen pixels from one to the next.
TITLES = ((15, 21, 2, 18), (12, 26, 3, 15))
REMARK, REMARK_SIZE, REMARK_PITCH = 26, 12, 15  # letters; size and pitch as a title's


@dataclass
class Turn:
    """One volume.

    Args:
        title: its name.
        remarks: lines below it.
        colour: of the mark beside it, 0 to 255.
        views: around the axis, evenly spaced, the first from the front; every volume has as many.
        reading: of these views; None, or of no classes: nothing stands below them.
    """

    title: str
    remarks: Sequence[str]
    colour: tuple[int, int, int]
    views: Float[Tensor, "B 1 H W"]
    reading: Reading | None = None


def turns_strip(turns: Sequence[Turn], class_names: Sequence[Sequence[str]]) -> UInt8[np.ndarray, "height width 3"]:
    """All of them on one sheet.

    Args:
        turns: from the top down; one or more.
        class_names: for each, the names of the classes that are read; empty where there are none.
    """
    count, pitch = len(turns[0].views), THUMBNAIL + CAPTION + BETWEEN
    size = (LEFT + count * THUMBNAIL + MARGIN, TOP + len(turns) * pitch + 18)
    canvas = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for row, (turn, names) in enumerate(zip(turns, class_names, strict=True)):
        y = TOP + row * pitch
        draw.rectangle((MARGIN, y + 2, MARGIN + 4, y + THUMBNAIL - 4), turn.colour)
        lines, size_of_title, pitch_of_title = _title(turn.title)
        for line, text in enumerate(lines):
            draw.text((MARGIN + 14, y + pitch_of_title * line), text, INK, _font(size_of_title))
        below = y + pitch_of_title * len(lines) + 4
        for line, remark in enumerate(turn.remarks):
            at = (MARGIN + 14, below + REMARK_PITCH * line)
            draw.text(at, _shortened(remark, REMARK), FAINT, _font(REMARK_SIZE))
        for place, view in enumerate(turn.views):
            x = LEFT + place * THUMBNAIL
            canvas.paste(_thumbnail(view, THUMBNAIL - 2), (x, y))
            if turn.reading is not None and names and bool(turn.reading.legible[place]):
                label = int(turn.reading.label[place])
                middle = (x + THUMBNAIL / 2 - 1, y + THUMBNAIL + CAPTION / 2 - 2)
                draw.text(middle, names[label][:9], class_colour(label), _font(14), anchor="mm")
    for place in range(count):
        x = LEFT + place * THUMBNAIL + THUMBNAIL / 2 - 1
        draw.text((x, TOP - 8), _degrees(round(360 * place / count)), FAINT, _font(11), anchor="mb")
    return np.asarray(canvas)


def _title(title: str) -> tuple[list[str], int, int]:
    """Lines, their size, and the pixels from one to the next: smaller where it is long, and then without its middle.

    What tells variants apart stands at the end: "VoxelGrid, pairing hinge".
    """
    for size, letters, most, pitch in TITLES:
        lines = wrap(title, letters)
        if len(lines) <= most:
            return lines, size, pitch
    size, letters, most, pitch = TITLES[-1]
    return [*wrap(title, letters)[: most - 1], f"...{title[3 - letters :]}"], size, pitch


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."
