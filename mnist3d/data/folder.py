"""A folder of image files, with one subfolder a class or none: the source `images`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError
from ..storage.memory import check_fits
from .ground import Ground, ground_of, is_inverted, most_common, seen, squared
from .image_files import IMAGE_SUFFIXES, UNREAD_SUFFIXES, is_litter, read_image
from .loaded import Loaded
from .options import DataOptions, Part

if TYPE_CHECKING:
    from PIL.Image import Image


def load_folder(options: DataOptions, image_size: int, part: Part) -> Loaded:
    """All images of a folder, bright on black, in one square size.

    An image whose border says what it stands on is inverted or not by itself, another as most are.

    Raises:
        DataError: no such folder, no images in it, a damaged one, or several sizes that may not be fitted.
    """
    folder = Path(str(options.path)).expanduser()
    if not folder.is_dir():
        raise DataError(f"data.path={folder}: no such folder; it must hold images, or one subfolder a class")
    classes = [child for child in folder.iterdir() if child.is_dir() and not is_litter(child)]
    names = sorted(child.name for child in classes if any(_image_files(child)))
    beside = _image_files(folder)
    files = [(path, names.index(name)) for name in names for path in _image_files(folder / name)]
    if not names:
        files = [(path, 0) for path in beside]
    if not files:
        raise DataError(
            f"data.path={folder}: no images in it or in its subfolders; the suffix must be one of "
            f"{', '.join(IMAGE_SUFFIXES)}"
        )
    square = _Square(options, image_size)
    images: list[Image] = []
    grounds: list[Ground | None] = []
    several = 0
    for number, (path, _) in enumerate(files):
        file = read_image(path)
        ground = ground_of(file)
        if number == 0:
            square.check_fits(len(files), file.grey.size)
        if square.begins_with(file.grey.size, path):
            images = [square.fit(image, None) for image in images]  # all of one square size: nothing is around them
        images.append(square.fit(seen(file, is_inverted(options.invert, ground), ground), ground))
        grounds.append(ground)
        several += file.several
    inverted = [is_inverted(options.invert, ground) for ground in grounds]
    if options.invert == "auto" and most_common(grounds) == "white":
        for number, ground in enumerate(grounds):
            if ground is None:
                inverted[number] = True
                images[number] = square.fit(seen(read_image(files[number][0]), True, None), None)
    labels = np.array([label for _, label in files], np.int64) if names else None
    remarks = [f"data.path={folder}: {line}" for line in [_decided(options, grounds, inverted), *square.remarks()]]
    if several:
        remarks.append(f"data.path={folder}: {several} animations or files of several pages; the first image of each")
    if names and beside:
        remarks.append(f"data.path={folder}: {len(beside)} images beside the subfolders belong to no class; left out")
    unread = [path for place in (folder, *classes) for path in _visible_files(place, UNREAD_SUFFIXES)]
    if unread:
        kinds = ", ".join(sorted({path.suffix.lower() for path in unread}))
        remarks.append(f"data.path={folder}: {len(unread)} files of kinds that are not read ({kinds}); left out")
    return Loaded(
        np.stack([np.asarray(image) for image in images]), labels, names, False, square.largest, tuple(remarks)
    )


def _image_files(folder: Path) -> list[Path]:
    return _visible_files(folder, IMAGE_SUFFIXES)


def _visible_files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and not is_litter(path) and not path.is_dir()
    )


def _decided(options: DataOptions, grounds: Sequence[Ground | None], inverted: Sequence[bool]) -> str:
    """One line about inversion: what was done, and how to have it otherwise."""
    count, turned = len(inverted), sum(inverted)
    if options.invert != "auto":
        return f"{count} images, {'inverted' if options.invert else 'not inverted'} (data.invert)"
    if turned == count:
        return f"{count} images, dark on white: inverted; --data.invert false keeps them as they are"
    if turned:
        return (
            f"{turned} of {count} images are dark on white: inverted; the others are not; "
            "--data.invert true or false treats all alike"
        )
    if grounds.count(None) > count / 2:
        return (
            f"{count} images, most with neither a plain white nor a plain black border: not inverted; "
            "if they are dark on white, --data.invert true"
        )
    return f"{count} images, bright on black: not inverted; --data.invert true inverts them"


class _Square:
    """Whether, and how, images are fitted into a square.

    Args:
        options: `resize` true: all are; false: never; auto: from the first on that is not square or of another size.
        image_size: pixels along each edge.
    """

    def __init__(self, options: DataOptions, image_size: int) -> None:
        self.options, self.image_size = options, image_size
        self.fitting = options.resize is True
        self.sizes: dict[tuple[int, int], Path] = {}

    def begins_with(self, size: tuple[int, int], path: Path) -> bool:
        """Take notice of an image; true for the first that makes it necessary to fit all, those before it too.

        Raises:
            DataError: it is necessary, and is not allowed.
        """
        self.sizes.setdefault(size, path)
        needed = len(self.sizes) > 1 or size[0] != size[1]
        if self.fitting or not needed:
            return False
        if self.options.resize is False:
            shown = ", ".join(f"{w}x{h} ({path.name})" for (w, h), path in self.sizes.items())
            raise DataError(
                f"data.path={self.options.path}: images must all be one square size, but there are {shown}; "
                "without --data.resize false they are fitted"
            )
        self.fitting = True
        return True

    def check_fits(self, count: int, size: tuple[int, int]) -> None:
        """Fail before many images are read that memory cannot hold.

        Args:
            count: images.
            size: of the first; where all are square and of one size, they are kept as they are.

        Raises:
            DataError: they would not fit.
        """
        kept = self.image_size**2 if self.fitting or size[0] != size[1] else size[0] * size[1]
        # Bytes, and once more where they are joined; then in the size of views as numbers, once more likewise.
        needed = count * (2 * kept + 8 * self.image_size**2)
        what = f"data.path={self.options.path}: {count:,} images of {size[0]}x{size[1]} pixels take"
        check_fits(needed, what, "give fewer or smaller ones, or lower renderer.image_size", DataError)

    def fit(self, image: "Image", ground: Ground | None) -> "Image":
        """The image as it is, or in the square."""
        return squared(image, ground, self.image_size) if self.fitting else image

    @property
    def largest(self) -> tuple[int, int] | None:
        """Width and height of the largest file, if it was fitted."""
        return max(self.sizes, key=max) if self.fitting else None

    def remarks(self) -> list[str]:
        """A line where it was necessary to fit, and nobody had asked for it."""
        if not self.fitting or self.options.resize is True:
            return []
        least, most = min(self.sizes, key=max), max(self.sizes, key=max)
        sizes = f"all {most[0]}x{most[1]}"
        if len(self.sizes) > 1:
            sizes = f"sizes from {least[0]}x{least[1]} to {most[0]}x{most[1]}"
        return [
            f"{sizes}: each image is fitted into a square of "
            f"{self.image_size}x{self.image_size}; --data.resize false refuses them instead"
        ]
