"""One image file as an image viewer shows it: upright, in grey, with what is transparent in it.

All that a file says about itself counts: orientation, transparency, depth, colour profile. What is made of the image
stands in `ground`. Only the kinds of `KINDS` are read: Pillow would hand others to programs of the machine.
"""

import io
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError
from ..storage.plain_files import read_plain

if TYPE_CHECKING:
    from PIL.Image import Image, Transpose

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp")
KINDS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "TIFF", "WEBP")  # whatever the suffix
MAX_FILE = 2**28  # bytes
MAX_EDGE = 8192  # pixels
BAND = 2**22  # pixels that are converted at once, so that a large image needs little more memory than it has pixels
# Images too, of telephones and drawing programs: they are left out, and that is said.
UNREAD_SUFFIXES = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".psd", ".pdf")
LITTER = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information")  # folders of other programs
ORIENTATION = 0x0112  # a tag of EXIF and of TIFF
BITS, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF, and a value
PNG_DEPTH = 24  # where the byte with the bits of a sample lies
# What readers of damaged files raise, beside what they should.
DAMAGED = (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError, struct.error)


@dataclass(frozen=True)
class ImageFile:
    """What an image file shows.

    Args:
        grey: 8 bits, or 0.0 to 255.0 where more were asked for and are there; what lies under transparent pixels means
            nothing.
        opacity: 8 bits, 0 where nothing is there; None where all is opaque.
        several: whether it is the first image of an animation, or the first of several pages.
    """

    grey: "Image"
    opacity: "Image | None"
    several: bool = False


def is_litter(path: Path) -> bool:
    """Whether a file or folder is hidden, or another program's: nobody put it there as an image or as a class."""
    return path.name.startswith(".") or path.name in LITTER


def read_image(path: Path, *, all_bits: bool = False) -> ImageFile:
    """An image file, upright and in grey.

    The first image of an animation, the first page of a TIFF. 16 bits become 8; so do floating-point numbers.

    Args:
        path: of the file.
        all_bits: keep them instead, as floating-point numbers.

    Raises:
        DataError: it is missing, no plain file, too large, damaged, no image, or its values have no agreed black and
            white.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        content = read_plain(path, MAX_FILE)
    except FileNotFoundError:
        raise DataError(f"data.path={path}: not a readable image (no such file)") from None
    except (OSError, ValueError) as error:  # of a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"data.path={path}: not a readable image ({reason})") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged tags: what they are about is not needed
            # From memory: Pillow 13 maps a plain TIFF file into it with the edges of the turned image.
            with Image.open(io.BytesIO(content), formats=KINDS) as image:
                _check_size(image.size, path)
                several = bool(getattr(image, "is_animated", False)) and image.format != "MPO"  # JPEG and its preview
                image.load()
                _check_size(image.size, path)  # the first frame of an animation can be larger than what it stands in
                opacity = _opacity(image, content)
                grey = _grey(image, path, all_bits)
                turned = _turned(image)
    except DataError:
        raise
    except (*DAMAGED, Image.DecompressionBombError) as error:
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "no kind of file that is known" if unknown else " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"data.path={path}: not a readable image ({reason}); remove it, or save it as a PNG of 8 bits"
        ) from None
    if turned is not None:
        grey, opacity = grey.transpose(turned), None if opacity is None else opacity.transpose(turned)
    return ImageFile(grey, opacity, several)


def _check_size(size: tuple[int, int], path: Path) -> None:
    if not 1 <= min(size) <= max(size) <= MAX_EDGE:
        raise DataError(
            f"data.path={path}: {size[0]}x{size[1]} pixels; must be at most {MAX_EDGE} along each edge; make it smaller"
        )


def _by_bands(image: "Image", convert: "Callable[[Image], Image]") -> "Image":
    """What a conversion pixel by pixel makes of an image, some rows at a time; it gives 8 bits in grey."""
    from PIL import Image

    width, height = image.size
    rows, made = max(1, BAND // width), Image.new("L", image.size)
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(height, top + rows)))
        made.paste(convert(band), (0, top))
    return made


def _turned(image: "Image") -> "Transpose | None":
    """How to turn or mirror it, to see it as it was meant; a damaged tag says nothing."""
    from PIL.Image import Transpose

    try:
        orientation = image.getexif().get(ORIENTATION)
    except DAMAGED:
        return None
    return {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation or 1)


def _opacity(image: "Image", content: bytes) -> "Image | None":
    """From an alpha channel, the palette's entries, or the one colour that means nothing is there."""
    from PIL import Image

    key = image.info.get("transparency")
    if image.mode == "P" and (key is not None or (image.palette is not None and image.palette.mode.endswith("A"))):
        return _by_bands(image, lambda band: band.convert("RGBA").getchannel("A"))
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa"):
        return image.getchannel(len(image.getbands()) - 1)
    if not isinstance(key, int | tuple):
        return None
    values = np.asarray(image.convert("L") if image.mode == "1" else image)
    colour = np.array(key)
    if image.format == "PNG":  # the key is in the file's own bits, and the pixels have 8 or 16 by now
        depth = content[PNG_DEPTH]
        if depth < 8:
            colour = colour * 255 // (2**depth - 1) if colour.max() < 2**depth else colour
        elif depth == 16 and values.dtype == np.uint8:
            colour = colour >> 8
    differs = values != colour
    return Image.fromarray((differs.any(axis=-1) if differs.ndim == 3 else differs).astype(np.uint8) * 255)


def _grey(image: "Image", path: Path, all_bits: bool) -> "Image":
    if image.mode[0] in "IF":
        return _from_deep(image, path, all_bits)
    return _by_bands(image, _grey_band)


def _grey_band(image: "Image") -> "Image":
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    if image.mode in ("LA", "La", "RGBA", "RGBa"):
        profile = image.info.get("icc_profile")
        image = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode))
        image = image.convert("RGB") if image.mode == "RGBA" else image.getchannel("L")
        image.info["icc_profile"] = profile
    return _in_srgb(image).convert("L")


def _in_srgb(image: "Image") -> "Image":
    """Colours by the profile that the file carries; without one, with sRGB or with a damaged one as they are."""
    if not image.info.get("icc_profile"):
        return image
    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        if "srgb" in ImageCms.getProfileDescription(profile).lower():
            return image
        seen = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, ImportError, *DAMAGED):
        return image
    return image if seen is None else seen


def _from_deep(image: "Image", path: Path, all_bits: bool) -> "Image":
    """Grey of more than 8 bits a pixel, in 8 bits or in all.

    Raises:
        DataError: signed or 32-bit integers, or floating-point numbers beyond [0, 1].
    """
    from PIL import Image

    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image)
    if image.mode == "F":
        low, high = float(values.min()), float(values.max())
        if not 0.0 <= low <= high <= 1.0:
            raise DataError(
                f"data.path={path}: floating-point values from {low:g} to {high:g}; must be in [0, 1], black to white; "
                "scale them, or save it with 8 or 16 bits"
            )
        white = 1.0
    elif image.mode == "I" and image.format != "PNG":  # Pillow before version 11 has 16-bit PNG files so
        raise DataError(
            f"data.path={path}: integers of 32 bits or with a sign, of which none is white; save it with 8 or 16 bits"
        )
    else:
        bits = tags.get(BITS, (16,))
        white = 2.0 ** (bits[0] if isinstance(bits, tuple) else bits) - 1.0
    turned_round = tags.get(PHOTOMETRIC) == WHITE_IS_ZERO  # Pillow turns 8 bits round, and not these
    made = np.empty(values.shape, np.float32 if all_bits else np.uint8)
    rows = max(1, BAND // values.shape[1])
    for top in range(0, len(values), rows):
        share = values[top : top + rows].astype(np.float64) / white
        level = (1.0 - share if turned_round else share) * 255.0
        made[top : top + rows] = level if all_bits else np.rint(level)
    return Image.fromarray(made)
