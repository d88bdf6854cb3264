"""Files in idx form, as those of MNIST: the source `idx`."""

import gzip
import math
import re
import struct
import zlib
from pathlib import Path
from typing import cast

import numpy as np

from ..errors import DataError
from ..storage.memory import check_fits
from ..storage.plain_files import Readable, open_plain, read_at_most, size_in_words
from .ground import ground_of_all, is_inverted
from .image_files import MAX_EDGE, is_litter
from .loaded import Loaded
from .options import DataOptions, Part

MAX_BYTES = 2**30  # of one file, unpacked
TEST_SET = re.compile(r"(^|[-_.])(t10k|test)([-_.]|$)")  # in the name of an idx file


def read_idx(path: Path) -> np.ndarray:
    """An idx file of unsigned bytes, gzipped or not.

    No more is read or unpacked than its header claims, and no more than `MAX_BYTES`.

    Raises:
        DataError: no such file, or not an idx file of unsigned bytes.

    Source:
        http://yann.lecun.com/exdb/mnist, "the IDX file format".
    """
    try:
        with open_plain(path) as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if not packed:
                return _read_idx(path, file)
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _read_idx(path, cast("Readable", unpacked))
    except DataError:
        raise
    except (OSError, EOFError, struct.error, ValueError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"data.path={path}: not a readable idx file ({reason})") from None


def _read_idx(path: Path, stream: Readable) -> np.ndarray:
    """What the header claims, and not a byte more."""
    wrong = f"data.path={path}: not an idx file of unsigned bytes, or cut short"
    zero, kind, axes = struct.unpack(">HBB", stream.read(4))
    if zero != 0 or kind != 8:
        raise DataError(wrong)
    shape = struct.unpack(f">{axes}I", stream.read(4 * axes))
    claimed = math.prod(shape)
    if claimed > MAX_BYTES:
        raise DataError(
            f"data.path={path}: its header claims {size_in_words(claimed)}; at most {size_in_words(MAX_BYTES)} are read"
        )
    check_fits(2 * claimed, f"data.path={path}: reading it takes", "give a smaller set", DataError)
    try:
        body = read_at_most(stream, claimed)
    except ValueError:
        raise DataError(f"data.path={path}: holds more than its header claims, {shape}") from None
    if len(body) != claimed:
        raise DataError(wrong)
    return np.frombuffer(body, np.uint8).reshape(shape)


def load_idx(options: DataOptions, image_size: int, part: Part) -> Loaded:
    """The training set or the test set of a folder; whether to invert is decided for all at once, by the training set.

    Raises:
        DataError: no such folder, no idx files in it or several sets, or damaged ones.
    """
    folder = Path(str(options.path)).expanduser()
    if not folder.is_dir():
        raise DataError(f"data.path={folder}: no such folder; it must hold idx files")
    files = _idx_files(folder)
    found = [file for file in files if "idx3" in file.name]
    test = [file for file in found if TEST_SET.search(file.name)]
    train = [file for file in found if file not in test]
    if not train:
        names = "train-images-idx3-ubyte or train-images-idx3-ubyte.gz"
        raise DataError(f"data.path={folder}: no training images in idx form; a file such as {names} must lie there")
    for each in (train, test):  # such as the six splits of EMNIST side by side
        if len({file.name.removesuffix(".gz") for file in each}) > 1:
            shown = ", ".join(file.name for file in each[:3])
            raise DataError(f"data.path={folder}: {len(each)} sets in idx form ({shown}); leave one in the folder")
    images, labels = _idx_set(train[0], files)
    inverted = is_inverted(options.invert, ground_of_all(images) if options.invert == "auto" else None)
    # A test set may lack a class: the classes are those of the training set.
    kinds = None if labels is None else np.unique(labels)
    if test and part == "held_out":
        path = test[0]
        images, labels = _idx_set(path, files)
        if kinds is not None and labels is not None and not np.isin(labels, kinds).all():
            raise DataError(f"data.path={path}: it has classes that {train[0].name} lacks")
    remarks: tuple[str, ...] = ()
    if inverted:
        images = 255 - images
        remarks = (f"data.path={folder}: dark on white, inverted; --data.invert false keeps the images as they are",)
    images = _in_squares(images)
    if kinds is None or labels is None:
        return Loaded(images, None, [], bool(test), remarks=remarks)
    names = [str(kind) for kind in kinds]
    return Loaded(images, np.searchsorted(kinds, labels), names, bool(test), remarks=remarks)


def _idx_files(folder: Path) -> list[Path]:
    """Files with idx in their names: those of the folder, or, where none has images, those one folder further down.

    Kaggle's MNIST has both, a file and a folder that holds it once more.
    """
    for pattern in ("*", "*/*"):
        places = [path for path in folder.glob(pattern) if not is_litter(path) and not is_litter(path.parent)]
        files = sorted(path for path in places if "idx" in path.name and path.is_file())
        if any("idx3" in path.name for path in files):
            return files
    return []


def _idx_set(path: Path, files: list[Path]) -> tuple[np.ndarray, np.ndarray | None]:
    """Images of a file, and their labels where a file of that name with `labels` and `idx1` is among the others."""
    images = read_idx(path)
    if images.ndim != 3:
        raise DataError(f"data.path={path}: {images.ndim} axes; images have three (number, rows, columns)")
    if not 1 <= min(images.shape[1:]) <= max(images.shape[1:]) <= MAX_EDGE:
        rows, columns = images.shape[1:]
        raise DataError(f"data.path={path}: images of {columns}x{rows} pixels; each edge must be in [1, {MAX_EDGE}]")
    if path.name.startswith("emnist-"):
        images = images.swapaxes(1, 2)  # EMNIST stores columns first (Cohen et al. 2017)
    name = path.name.replace("images", "labels").replace("idx3", "idx1")
    names = [name, name.removesuffix(".gz"), f"{name}.gz"]
    label_file = next((file for name in names for file in files if file.name == name and file != path), None)
    if label_file is None:
        return images, None
    labels = read_idx(label_file).astype(np.int64)
    if labels.shape != (len(images),):
        raise DataError(f"data.path={label_file}: {labels.shape} labels for {len(images)} images")
    return images, labels


def _in_squares(images: np.ndarray) -> np.ndarray:
    """Images that are not square, centred in black ones that are."""
    edge = max(images.shape[1:])
    what = f"data.path: {len(images):,} images in squares of {edge}x{edge} pixels take"
    check_fits(len(images) * edge**2, what, "give fewer, or images that are nearly square", DataError)
    missing = [edge - length for length in images.shape[1:]]
    return np.pad(images, [(0, 0), *((length // 2, length - length // 2) for length in missing)])
