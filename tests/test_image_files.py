"""Image files: what each says about itself counts, and what is no image file of the user's is passed over."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from mnist3d.data.image_files import read_image
from mnist3d.errors import DataError

HALF = np.full((8, 8), 128, np.uint8)
HALF[:, 4:] = 255  # left .5, right 1
RIGHT = Image.fromarray(np.where(HALF > 200, 255, 0).astype(np.uint8))
DEEP = HALF.astype(np.uint16) * 257


def png(path, depth, colour_type, rows, *chunks):
    """A PNG file by its specification: what Pillow would not write."""
    height, channels = len(rows), {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type]
    width = len(rows[0]) * 8 // (depth * channels)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, data in ((b"IHDR", header), *chunks, (b"IDAT", body), (b"IEND", b"")):
            file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))


def pillow(mode, **options):
    return lambda path: Image.fromarray(HALF).convert(mode).save(path, **options)


def tiff(values, **options):
    return lambda path: tifffile.imwrite(path, values, **options)


def tall(count, low, high):
    """Eight rows of `count` samples, the left half low and the right half high."""
    return [low * (count // 2) + high * (count // 2)] * 8


WORD = {value: struct.pack(">H", value) for value in (0, 32768, 65535)}

# Each file shows .5 at the left and 1 at the right, to a viewer; colours of equal channels.
SHOWN = {
    "8-bit.png": pillow("L"),
    "colour.png": pillow("RGB"),
    "colour.jpg": pillow("RGB", quality=98),
    "jfif.jfif": lambda path: Image.fromarray(HALF).save(path, "JPEG", quality=98),
    "palette.png": pillow("P"),
    "palette.gif": pillow("P"),
    "colour.bmp": pillow("RGB"),
    "colour.webp": pillow("RGB", lossless=True),
    "cmyk.tif": pillow("CMYK"),
    "cmyk.jpg": pillow("CMYK", quality=98),
    "ycbcr.jpg": pillow("YCbCr", quality=98),
    "opaque alpha.png": pillow("RGBA"),
    "grey alpha.png": pillow("LA"),
    "16-bit grey.png": lambda path: Image.fromarray(DEEP).save(path),
    "16-bit grey alpha.png": lambda path: png(
        path, 16, 4, tall(8, WORD[32768] + WORD[65535], WORD[65535] + WORD[65535])
    ),
    "16-bit colour.png": lambda path: png(path, 16, 2, tall(8, WORD[32768] * 3, WORD[65535] * 3)),
    "16-bit colour alpha.png": lambda path: png(
        path, 16, 6, tall(8, WORD[32768] * 3 + WORD[65535], WORD[65535] * 3 + WORD[65535])
    ),
    "16-bit little endian.tif": tiff(DEEP, byteorder="<"),
    "16-bit big endian.tif": tiff(DEEP, byteorder=">"),
    "16-bit, white is 0.tif": tiff(65535 - DEEP, byteorder="<", photometric="miniswhite"),
    "8-bit, white is 0.tif": tiff(255 - HALF, photometric="miniswhite"),
    "16-bit colour.tif": tiff(np.repeat(DEEP[..., None], 3, -1), photometric="rgb"),
    "32-bit float.tif": tiff((DEEP / 65535).astype(np.float32), byteorder="<"),
    "32-bit float, big endian.tif": tiff((DEEP / 65535).astype(np.float32), byteorder=">"),
}


@pytest.mark.parametrize("name", SHOWN)
def test_depths_and_colours(tmp_path, name):
    SHOWN[name](tmp_path / name)
    image = read_image(tmp_path / name)
    grey = np.asarray(image.grey) / 255
    assert image.grey.mode == "L"
    # One step of 8 bits by the rounding of 16 and of colours; two more by JPEG of that quality.
    assert np.abs(grey - np.where(HALF > 200, 1.0, 0.5)).max() <= (3 if name.endswith(("jpg", "jfif")) else 1.01) / 255
    assert image.opacity is None or np.asarray(image.opacity).min() == 255
    assert not image.several


def test_one_bit(tmp_path):
    Image.fromarray(HALF > 200).save(tmp_path / "a.png")
    Image.fromarray(HALF > 200).save(tmp_path / "b.tif")
    for file in tmp_path.iterdir():
        assert np.array_equal(np.asarray(read_image(file).grey), np.where(HALF > 200, 255, 0)), file.name


def test_twelve_bits(tmp_path):
    """Two samples in three bytes: 2048 and 4095 of 4095."""
    row = bytes([0x80, 0x08, 0x00]) * 2 + bytes([0xFF, 0xFF, 0xFF]) * 2
    tags = [(256, 3, 8), (257, 3, 8), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 3, 8)]
    tags.append((279, 4, len(row) * 8))
    content = b"II*\0" + struct.pack("<I", 8 + len(row) * 8) + row * 8 + struct.pack("<H", len(tags))
    content += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags) + bytes(4)
    (tmp_path / "a.tif").write_bytes(content)
    grey = np.asarray(read_image(tmp_path / "a.tif").grey)
    assert np.array_equal(grey, HALF)


REFUSED = {
    "int.tif": (tiff(DEEP.astype(np.int32)), "integers of 32 bits"),
    "unsigned.tif": (tiff(DEEP.astype(np.uint32), byteorder="<"), "integers of 32 bits"),
    "signed.tif": (tiff(HALF.astype(np.int16)), "with a sign"),
    "float.tif": (tiff(HALF.astype(np.float32)), r"from 128 to 255; must be in \[0, 1\]"),
    "nan.tif": (tiff(np.where(HALF > 200, np.nan, 0.5).astype(np.float32)), r"must be in \[0, 1\]"),
    "double.tif": (tiff(DEEP / 65535), "not a readable image"),
    "cut.png": (lambda path: path.write_bytes(_png_bytes(path)[:50]), "not a readable image"),
    "text.png": (lambda path: path.write_text("<html>"), "not a readable image"),
    "empty.jpg": (lambda path: path.touch(), "not a readable image"),
    "no such.png": (lambda path: None, "no such file"),
}


def _png_bytes(path):
    Image.fromarray(HALF).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_scaled_is_refused_with_the_remedy(tmp_path, name):
    write, told = REFUSED[name]
    write(tmp_path / name)
    with pytest.raises(DataError, match=told) as caught:
        read_image(tmp_path / name)
    message = str(caught.value)
    assert name in message
    assert "\n" not in message
    assert "save it" in message or name == "no such.png"


KEYED = (b"tRNS", b"\0\0")  # grey 0 is where nothing is
PALETTE = (b"PLTE", bytes([128, 128, 128, 255, 255, 255]))

# Each file is transparent at the left, and white at the right.
TRANSPARENT = {
    "alpha.png": lambda path: Image.merge("LA", [Image.fromarray(HALF), RIGHT]).save(path),
    "palette entry.png": lambda path: png(path, 8, 3, tall(8, b"\0", b"\1"), PALETTE, (b"tRNS", b"\0")),
    "palette, 1 bit.png": lambda path: png(path, 1, 3, [b"\x0f"] * 8, PALETTE, (b"tRNS", b"\0")),
    "grey key.png": lambda path: png(path, 8, 0, tall(8, b"\x80", b"\xff"), (b"tRNS", b"\0\x80")),
    "grey key, 4 bits.png": lambda path: png(path, 4, 0, tall(4, b"\x88", b"\xff"), (b"tRNS", b"\0\x08")),
    "grey key, 2 bits.png": lambda path: png(path, 2, 0, tall(2, b"\x55", b"\xff"), (b"tRNS", b"\0\x01")),
    "grey key, 1 bit.png": lambda path: png(path, 1, 0, [b"\x0f"] * 8, (b"tRNS", b"\0\0")),
    "grey key, 16 bits.png": lambda path: png(path, 16, 0, tall(8, WORD[32768], WORD[65535]), (b"tRNS", b"\x80\0")),
    "colour key.png": lambda path: png(path, 8, 2, tall(8, b"\1\2\3", b"\xff" * 3), (b"tRNS", b"\0\1\0\2\0\3")),
    "colour key, 16 bits.png": lambda path: png(
        path, 16, 2, tall(8, WORD[32768] * 3, WORD[65535] * 3), (b"tRNS", WORD[32768] * 3)
    ),
    "palette entry.gif": lambda path: Image.fromarray(HALF).convert("P").save(path, transparency=128),
    "alpha.webp": lambda path: _transparent_left().save(path, lossless=True),
    "alpha.tif": lambda path: _transparent_left().save(path),
}


def _transparent_left():
    image = Image.fromarray(HALF).convert("RGBA")
    image.putalpha(RIGHT)
    return image


@pytest.mark.parametrize("name", TRANSPARENT)
def test_transparency_in_all_its_forms(tmp_path, name):
    TRANSPARENT[name](tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.opacity is not None
    assert np.array_equal(np.asarray(image.opacity), np.asarray(RIGHT))
    assert (np.asarray(image.grey)[:, 4:] == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_orientation(tmp_path, orientation, suffix):
    stored = np.zeros((16, 32), np.uint8)
    stored[:8, :8], stored[8:, :8] = 255, 128  # no two of the eight look alike
    exif = Image.Exif()
    exif[0x112] = orientation
    file = tmp_path / f"a{suffix}"
    options: dict[str, Any] = {".webp": {"lossless": True}, ".jpg": {"quality": 98}}.get(suffix, {})
    Image.fromarray(stored).save(file, exif=exif, **options)
    seen = {  # first row and first column of the stored image, as EXIF 2.3 names them
        1: stored,  # top, left
        2: stored[:, ::-1],  # top, right
        3: stored[::-1, ::-1],  # bottom, right
        4: stored[::-1],  # bottom, left
        5: stored.T,  # left, top
        6: stored.T[:, ::-1],  # right, top
        7: stored.T[::-1, ::-1],  # right, bottom
        8: stored.T[::-1],  # left, bottom
    }
    shown = np.asarray(read_image(file).grey, float)
    assert shown.shape == seen[orientation].shape
    assert np.abs(shown - seen[orientation]).max() <= 4  # JPEG of that quality


def test_a_damaged_orientation_says_nothing(tmp_path):
    Image.fromarray(HALF).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f", quality=98)
    assert read_image(tmp_path / "a.jpg").grey.size == (8, 8)


def test_animations_and_pages_show_their_first(tmp_path):
    first, second = Image.fromarray(HALF), Image.fromarray(255 - HALF)
    for name in ("a.gif", "a.png", "a.webp", "a.tif"):
        lossless: dict[str, Any] = {"lossless": True} if name == "a.webp" else {}
        first.save(tmp_path / name, save_all=True, append_images=[second], **lossless)
        image = read_image(tmp_path / name)
        assert image.several, name
        assert np.abs(np.asarray(image.grey, int) - HALF).max() <= 1, name


def test_a_camera_image_with_its_preview_is_one_image(tmp_path):
    image = Image.fromarray(HALF)
    image.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[image], quality=98)
    with Image.open(tmp_path / "a.jpg") as opened:
        assert (opened.format, opened.n_frames) == ("MPO", 2)
    assert not read_image(tmp_path / "a.jpg").several


def test_a_colour_profile_is_not_misread(tmp_path):
    """A profile with linear light: half the light is .735 of sRGB's white."""
    linear = tmp_path / "linear.png"
    Image.fromarray(HALF).convert("RGB").save(linear, icc_profile=linear_profile())
    grey = np.asarray(read_image(linear).grey, float)
    expected = 255 * (1.055 * (128 / 255) ** (1 / 2.4) - 0.055)  # sRGB's curve: IEC 61966-2-1
    assert np.abs(grey[:, :4] - expected).max() <= 2  # the profile's own numbers have 16 bits
    assert np.abs(grey[:, 4:] - 255).max() <= 1
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, profile in (("srgb.png", srgb), ("damaged.png", srgb[:100])):
        Image.fromarray(HALF).save(tmp_path / name, icc_profile=profile)
        assert np.array_equal(np.asarray(read_image(tmp_path / name).grey), HALF), name


def linear_profile():
    """sRGB's primaries without its curve: its three `curv` or `para` tags replaced by the identity."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack_from(">I", profile, 128)[0]
    for k in range(count):
        name, offset, size = struct.unpack_from(">4sII", profile, 132 + 12 * k)
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            profile[offset : offset + size] = (b"curv" + bytes(8)).ljust(size, b"\0")
        elif name == b"desc":
            profile[offset : offset + size] = bytes(profile[offset : offset + size]).replace(
                b"s\0R\0G\0B", b"l\0i\0n\0e"
            )
    return bytes(profile)


def test_a_profile_of_another_colour_space_is_passed_over(tmp_path):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.fromarray(HALF).save(tmp_path / "a.png", icc_profile=lab)
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png").grey), HALF)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".tif", ".webp", ".bmp"])
def test_whatever_is_damaged_is_one_kind_of_error(tmp_path, suffix):
    """Cut short at twenty places, and a byte changed at eighty: an image, or one line."""
    whole = tmp_path / f"whole{suffix}"
    Image.fromarray(np.repeat(HALF[..., None], 3, -1)).save(whole)
    content, random = whole.read_bytes(), np.random.default_rng(0)
    damaged = [content[: len(content) * k // 20] for k in range(20)]
    for _ in range(80):
        changed = bytearray(content)
        changed[random.integers(len(content))] = random.integers(256)
        damaged.append(bytes(changed))
    messages = []
    file = tmp_path / f"a{suffix}"
    for each in damaged:
        file.write_bytes(each)
        try:
            read_image(file)
        except DataError as error:
            messages.append(str(error))
    assert 10 <= len(messages) < 100
    assert not any("\n" in message for message in messages)


def test_a_folder_is_no_image(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(DataError, match=r"a\.png: not a readable image .is a folder, not a plain file"):
        read_image(Path(tmp_path / "a.png"))
