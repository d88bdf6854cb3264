"""Images to learn from.

Where they come from, how they are split, moved, registered, compared. The libraries that single sources need are
imported when such a source is read.
"""

from .augment import random_shift
from .image_files import ImageFile, read_image
from .images import ImageSet, load_images
from .nearest import Exemplars
from .options import DataOptions
from .text import draw_text
from .typical import exemplar

__all__ = [
    "DataOptions",
    "Exemplars",
    "ImageFile",
    "ImageSet",
    "draw_text",
    "exemplar",
    "load_images",
    "random_shift",
    "read_image",
]
