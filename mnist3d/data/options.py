"""What `--data.*` sets: which images, from where, and what of them is held out."""

from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import DataError

DataName = Literal["mnist_5k", "mnist", "fashion_mnist", "kmnist", "emnist", "images", "idx"]
Part = Literal["training", "held_out"]


@dataclass
class DataOptions:
    """The images that the volume's views shall look like.

    Args:
        name: mnist_5k (5,000 digits, needs no network), mnist, fashion_mnist, kmnist, emnist (torchvision
            downloads them), images (a folder of images) or idx (plain or gzipped idx files).
        path: Folder of `images` or `idx`; for the downloads where they are kept, default data.
        held_out: Share of the images, in each class, that the sculpture never sees, for the scorecard;
            0 to 0.9. Sources with a test set hold that out instead.
        resize: Fit images of any size into the square (images only); without it they must all be one square size.
        limit: Take at most this many images, evenly over the classes, 2 or more; default all.
        scale: Edge of the image as a share of the square, the rest black, above 0 to 1; views see nothing beyond
            the unit ball, so images that fill their corners need 0.71, and MNIST's digits nothing.
        class_names: Names of the classes in the order of their labels, where the source only has numbers (idx).
    """

    name: DataName = "mnist_5k"
    path: str | None = None
    held_out: float = 0.3
    resize: bool = False
    limit: int | None = None
    scale: float = 1.0
    class_names: list[str] | None = None

    def __post_init__(self) -> None:
        if self.name not in get_args(DataName):
            raise DataError(f"data.name={self.name!r}: must be one of {', '.join(get_args(DataName))}")
        if not 0.0 <= self.held_out <= 0.9:
            raise DataError(f"data.held_out={self.held_out}: must be in [0, 0.9]")
        if self.limit is not None and self.limit < 2:
            raise DataError(f"data.limit={self.limit}: must be >= 2")
        if not 0.0 < self.scale <= 1.0:
            raise DataError(f"data.scale={self.scale}: must be > 0 and <= 1")
        if self.name in ("images", "idx") and self.path is None:
            raise DataError(f"data.path is not set: --data.name {self.name} needs --data.path FOLDER")
