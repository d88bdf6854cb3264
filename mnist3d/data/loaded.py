"""What a source hands on."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Loaded:
    """Images of one part of a source, or of all of it.

    Args:
        images: (N, rows, columns), bytes, bright on black.
        labels: (N,) class of each image; None where the source has none.
        class_names: one a class; empty without labels.
        split_done: whether these are the images of the part alone.
        largest: width and height of the largest file, where the images were fitted into a square; else None.
        remarks: what was decided about the images, a line each.
    """

    images: np.ndarray
    labels: np.ndarray | None
    class_names: list[str]
    split_done: bool = False
    largest: tuple[int, int] | None = None
    remarks: tuple[str, ...] = ()
