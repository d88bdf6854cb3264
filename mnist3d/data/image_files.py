"""One image file as an image viewer shows it: upright, in grey, with what is transparent in it.

All that a file says about itself counts: orientation, transparency, depth, colour profile. What is made of the image
stands in `ground`.
"""

import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image, Transpose

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp")
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
        grey: 8 bits; what lies under transparent pixels means nothing.
        opacity: 8 bits, 0 where nothing is there; None where all is opaque.
        several: whether it is the first image of an animation, or the first of several pages.
    """

    grey: "Image"
    opacity: "Image | None"
    several: bool = False


def is_litter(path: Path) -> bool:
    """Whether a file or folder is hidden, or another program's: nobody put it there as an image or as a class."""
    return path.name.startswith(".") or path.name in LITTER


def read_image(path: Path) -> ImageFile:
    """An image file, upright and in grey.

    The first image of an animation, the first page of a TIFF. 16 bits become 8; so do floating-point numbers.

    Raises:
        DataError: it is missing, damaged, no image, or its values have no agreed black and white.
    """
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():  # a pipe would be waited for
        raise DataError(f"data.path={path}: not a readable image (no such file)")
    try:
        content = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged tags: what they are about is not needed
            # From memory: Pillow 13 maps a plain TIFF file into it with the edges of the turned image.
            with Image.open(io.BytesIO(content)) as image:
                several = bool(getattr(image, "is_animated", False)) and image.format != "MPO"  # JPEG and its preview
                image.load()
                opacity = _opacity(image, content)
                grey = _grey(image, path)
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
        return image.convert("RGBA").getchannel("A")
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


def _grey(image: "Image", path: Path) -> "Image":
    if image.mode[0] in "IF":
        return _from_deep(image, path)
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


def _from_deep(image: "Image", path: Path) -> "Image":
    """Grey of more than 8 bits a pixel.

    Raises:
        DataError: signed or 32-bit integers, or floating-point numbers beyond [0, 1].
    """
    from PIL import Image

    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image).astype(np.float64)
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
    share = values / white
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # Pillow turns 8 bits round, and not these
        share = 1.0 - share
    return Image.fromarray(np.rint(share * 255.0).astype(np.uint8))
