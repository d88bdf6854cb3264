"""What `--data.*` sets: which images, from where, and what of them is held out."""

from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import DataError

DataName = Literal["mnist_5k", "mnist", "fashion_mnist", "kmnist", "emnist", "images", "idx"]
Part = Literal["training", "held_out"]
Invert = Literal["auto"] | bool


@dataclass
class DataOptions:
    """The images that the views should look like.

    Args:
        name: Source of the images: mnist_5k (5,000 digits, needs no network); mnist, fashion_mnist, kmnist or emnist
            (downloaded by torchvision); images (a folder of images); idx (idx files, plain or gzipped).
        path: Folder of the images or idx files. For the downloaded sources, the folder to keep them in; default ./data.
        held_out: Share of the images of each class that is kept out of training, for the scores; 0 to 0.9. Sources with
            a test set keep that out instead.
        resize: For a folder of images: fit each image into a square. auto: only if they are not all square and of one
            size; false: refuse such images.
        invert: Make dark-on-white images bright on black. auto: those whose border is plain white (of idx files all or
            none; the sources with names never). Also for the image files of targets.
        limit: Use at most this many images, spread evenly over the classes, >= 2; default all.
        scale: Size of the image in its square, > 0 and <= 1; the rest is black. Views show nothing outside the unit
            ball, so images that fill their corners need 0.71.
        class_names: Names of the classes, in the order of their labels, for sources where classes are numbers (idx).
    """

    name: DataName = "mnist_5k"
    path: str | None = None
    held_out: float = 0.3
    resize: Literal["auto"] | bool = "auto"
    invert: Invert = "auto"
    limit: int | None = None
    scale: float = 1.0
    class_names: list[str] | None = None

    def __post_init__(self) -> None:
        if self.name not in get_args(DataName):
            raise DataError(f"data.name={self.name!r}: must be one of {', '.join(get_args(DataName))}")
        if not 0.0 <= self.held_out <= 0.9:
            raise DataError(f"data.held_out={self.held_out}: must be in [0, 0.9]")
        for key, value in (("resize", self.resize), ("invert", self.invert)):
            if value not in ("auto", True, False):
                raise DataError(f"data.{key}={value!r}: must be auto, true or false")
        if self.limit is not None and self.limit < 2:
            raise DataError(f"data.limit={self.limit}: must be >= 2")
        if not 0.0 < self.scale <= 1.0:
            raise DataError(f"data.scale={self.scale}: must be > 0 and <= 1")
        if self.name in ("images", "idx") and self.path is None:
            raise DataError(f"data.path is not set: --data.name {self.name} needs --data.path FOLDER")
