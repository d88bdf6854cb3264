"""Stacks of images of one object: .mrc and .mrcs, .tif, .npy, or a folder; a stranger's file each. Writes .mrcs."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ..data.image_files import IMAGE_SUFFIXES, is_litter, read_image
from ..errors import DataError, ExportError, UserError, VolumeFileError
from ..formats.contents import Claim, exactly, first_fastest, read_plain_claim
from ..formats.mrc import HEADER, MODES, STAMPS, has_unsigned_bytes
from ..storage.memory import check_fits
from ..storage.optional import require
from ..storage.plain_files import open_plain

STACK_SUFFIXES = (".mrcs", ".mrc", ".tif", ".tiff", ".npy")
MOST_IMAGES, MOST_EDGE = 1_000_000, 4096
NPY_HEADER = 10_000  # bytes; NumPy's own limit
LARGEST = 1e12  # of a value: sums of squares must be float32
COPIES = 3  # of the images while they are read and brought to their size, each 4 bytes a pixel
WHITE_IS_ZERO = 0  # what a TIFF file can say of its numbers


@dataclass(frozen=True)
class Stack:
    """Images as they lie in a file.

    Args:
        values: of integers of 8 or 16 bits in image files the share of white, else as they are.
        pixel_size: as the file says it; None where it does not.
        unit: of the pixel size.
    """

    values: Float[np.ndarray, "B N N"]
    pixel_size: float | None = None
    unit: str = "angstrom"


def read_stack(path: Path) -> Stack:
    """The images of a file or folder.

    Raises:
        DataError: nothing there, another kind of file, damaged, too large, or images that are not square and of one
            size, finite, and different from pixel to pixel.
    """
    try:
        stack = _read(path)
    except (DataError, ExportError):
        raise
    except UserError as error:
        raise DataError(str(error)) from None
    except (OSError, ValueError) as error:
        raise DataError(f"stack={path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    _check(path, stack.values)
    return stack


def _read(path: Path) -> Stack:
    if path.is_dir():
        return _read_folder(path)
    suffix = path.suffix.lower()
    readers: dict[str, Callable[[Path], Stack]] = {".npy": _read_npy, ".mrc": _read_mrc, ".mrcs": _read_mrc}
    readers |= {".tif": _read_tif, ".tiff": _read_tif}
    if suffix not in readers:
        raise DataError(
            f"stack={path}: suffix {suffix or '(none)'}; must be one of {', '.join(STACK_SUFFIXES)}, or a folder of "
            f"images ({', '.join(IMAGE_SUFFIXES)})"
        )
    return readers[suffix](path)


def check_shape(path: Path, shape: tuple[int, ...]) -> None:
    """Fail, before memory is taken, on what is no stack of square images.

    Raises:
        DataError: with the shape and what it must be.
    """
    if len(shape) != 3 or shape[1] != shape[2] or not (1 <= shape[0] <= MOST_IMAGES and 8 <= shape[1] <= MOST_EDGE):
        raise DataError(
            f"stack={path}: its shape is {tuple(shape)}; must be (images, N, N): square images of 8 to {MOST_EDGE} "
            f"pixels, at most {MOST_IMAGES:,} of them; crop them to squares with the object in the middle"
        )
    needed = COPIES * 4 * math.prod(shape)
    check_fits(needed, f"stack={path}: {shape[0]:,} images of {shape[1]} pixels take", "give fewer", DataError)


def _check(path: Path, values: Float[np.ndarray, "B N N"]) -> None:
    finite = np.isfinite(values).all(axis=(1, 2))
    if not finite.all():
        raise DataError(
            f"stack={path}: {int((~finite).sum()):,} of {len(values):,} images hold NaN or infinity, the first is "
            f"image {int((~finite).argmax())}; leave them out"
        )
    highest, lowest = values.max(axis=(1, 2)), values.min(axis=(1, 2))
    huge = np.maximum(highest, -lowest)
    if huge.max() > LARGEST:
        raise DataError(
            f"stack={path}: image {int(huge.argmax())} holds a value of {huge.max():.3g}; must be at most {LARGEST:g} "
            "in size; is the file damaged, or its scale to be divided out?"
        )
    constant = highest == lowest
    if constant.any():
        raise DataError(
            f"stack={path}: {int(constant.sum()):,} of {len(values):,} images are constant, the first is image "
            f"{int(constant.argmax())}; leave them out"
        )


def _read_npy(path: Path) -> Stack:
    with open_plain(path) as file:
        major, _ = np.lib.format.read_magic(file)
        if int.from_bytes(file.read(2 if major == 1 else 4), "little") > NPY_HEADER:
            raise DataError(f"stack={path}: damaged: its header is longer than that of any array of numbers")
        file.seek(8)
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, first_is_fastest, dtype = read(file)
        if dtype.kind not in "biuf":
            raise DataError(f"stack={path}: holds {dtype} values; must be integers or real numbers")
        check_shape(path, shape)
        order = first_fastest if first_is_fastest else Claim
        found = read_plain_claim(order(path, shape, dtype, (slice(None),) * 3), file, file.tell())
    found = found.T if first_is_fastest else found
    return Stack(found / np.float32({"u1": 255.0, "u2": 65535.0}.get(dtype.str[1:], 1.0)))


def _read_mrc(path: Path) -> Stack:
    """Sections are images, whatever the header calls them: many programs write a stack as a volume."""
    with open_plain(path) as file:
        header = np.frombuffer(exactly(file, HEADER.itemsize), HEADER).reshape(())
        order = STAMPS.get(bytes(header["machst"])[:2], "<")
        header = header.view(HEADER.newbyteorder(order))
        mode = int(header["mode"])
        if mode not in MODES:
            raise DataError(f"stack={path}: is of mode {mode}; must be one of {', '.join(map(str, MODES))}")
        columns, rows, count = (int(header[name]) for name in ("nx", "ny", "nz"))
        check_shape(path, (count, rows, columns))
        dtype = np.dtype("u1" if mode == 0 and has_unsigned_bytes(header) else MODES[mode]).newbyteorder(order)
        claim = Claim(path, (count, rows, columns), dtype, (slice(None),) * 3)
        values = read_plain_claim(claim, file, HEADER.itemsize + max(int(header["nsymbt"]), 0))
        width, intervals = float(header["cella"]["x"]), int(header["mx"])
    size = width / intervals if intervals > 0 and math.isfinite(width) and width > 0.0 else None
    return Stack(values, size)


def _read_tif(path: Path) -> Stack:
    return Stack(_tif_pages(path))


def _tif_pages(path: Path) -> Float[np.ndarray, "B H W"]:
    tifffile = require("tifffile", ".tif", error=VolumeFileError)
    with open_plain(path) as file, _unsaid("tifffile"):
        try:
            with tifffile.TiffFile(file, name=path.name) as opened:
                shapes = {(*page.shape, page.dtype) for page in opened.pages}
                if len(shapes) != 1 or len(opened.pages[0].shape) != 2:
                    raise DataError(
                        f"stack={path}: its pages are of {len(shapes)} kinds, the first of shape "
                        f"{opened.pages[0].shape}; must all be grey and of one size"
                    )
                check_shape(path, (len(opened.pages), *opened.pages[0].shape))
                return np.stack([_of_page(page) for page in opened.pages])
        except DataError:
            raise
        except Exception as error:  # of a library, on a damaged file
            raise DataError(f"stack={path}: damaged, or no TIFF file ({' '.join(str(error).split())[:200]})") from None


@contextmanager
def _unsaid(library: str) -> Iterator[None]:
    """A block in which a library logs nothing: what matters of a damaged file is one line of ours."""
    log = logging.getLogger(library)
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _of_page(page: Any) -> Float[np.ndarray, "H W"]:
    """Shares of white for 1 to 16 bits without a sign; other numbers as they are."""
    array = page.asarray()
    bits = page.bitspersample
    if array.dtype.kind not in "bu" or bits > 16:
        return array.astype(np.float32)
    share = (array / np.float32(2**bits - 1)).astype(np.float32)
    return 1.0 - share if page.photometric == WHITE_IS_ZERO else share


def _read_folder(folder: Path) -> Stack:
    """Its image files in the order of their names; a TIFF file keeps its numbers, others become shares of white."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not is_litter(path))
    if not paths:
        raise DataError(f"stack={folder}: holds no images; must be one or more of {', '.join(IMAGE_SUFFIXES)}")
    images: list[np.ndarray] = []
    for path in paths:
        image = _of_file(path)
        if images and image.shape != images[0].shape:
            raise DataError(
                f"stack={folder}: {path.name} has shape {image.shape}, {paths[0].name} {images[0].shape}; all must be "
                "of one size"
            )
        if not images:
            check_shape(folder, (len(paths), *image.shape))
        images.append(image)
    return Stack(np.stack(images))


def _of_file(path: Path) -> Float[np.ndarray, "H W"]:
    if path.suffix.lower() in (".tif", ".tiff"):
        pages = _tif_pages(path)
        if len(pages) > 1:
            raise DataError(
                f"stack={path.parent}: {path.name} holds {len(pages):,} pages; a file of a folder must be one image: "
                f"save each page as a file, or give the file itself as the stack"
            )
        return pages[0]
    image = read_image(path, all_bits=True)
    if image.several:
        raise DataError(
            f"stack={path.parent}: {path.name} holds several images; a file of a folder must be one image: save each "
            "as a file"
        )
    return (np.asarray(image.grey) / np.float32(255.0)).astype(np.float32)


def write_mrcs(path: Path, images: Float[np.ndarray, "B N N"], pixel_size: float) -> None:
    """A stack of images, as cryo-EM programs read it.

    Raises:
        ExportError: mrcfile is not installed.
    """
    mrcfile: Any = require("mrcfile", ".mrcs")
    with mrcfile.new(str(path), overwrite=True) as mrc:
        mrc.set_data(np.ascontiguousarray(images, np.float32))
        mrc.set_image_stack()
        mrc.voxel_size = pixel_size
