"""How many pixels a view has, and the square of it that the ball fills."""

import operator
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

MAX_IMAGE_SIZE = 4096


def height_and_width(image_size: Any) -> tuple[int, int]:
    """Of a view, pixels; the shorter one is checked by `RendererOptions`."""
    given = image_size if isinstance(image_size, Sequence) else (image_size, image_size)
    try:
        sizes = [operator.index(size) for size in given]
    except TypeError:
        sizes = []
    if len(sizes) != 2:
        raise ValueError(f"image_size={image_size!r}: must be one whole number of pixels, or (height, width)")
    height, width = sizes
    if max(sizes) > MAX_IMAGE_SIZE:
        raise ValueError(f"renderer.image_size={image_size}: must be in [1, {MAX_IMAGE_SIZE}]")
    if (height - width) % 2:
        longer = "height" if height > width else "width"
        raise ValueError(
            f"image_size=({height}, {width}): height and width must differ by an even number of pixels, or the middle "
            f"of the ball would lie half a pixel off; give a {longer} of {max(sizes) - 1} or {max(sizes) + 1}"
        )
    return height, width


def widened(view: Float[Tensor, "B 1 S S"], size: tuple[int, int]) -> Float[Tensor, "B 1 H W"]:
    """The view with empty pixels along its longer edge: outside the unit ball there is nothing."""
    down, right = ((edge - view.shape[-1]) // 2 for edge in size)
    return F.pad(view, (right, right, down, down)) if down or right else view
