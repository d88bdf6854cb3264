"""Orbits as mp4, gif, webp, or a PNG strip.

What it is: frames -> the file that its suffix names. What it is not: it chooses no path around the volume.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from . import ExportError

STRIP_FRAMES = 12  # views in a .png strip: as many as can be told apart at a glance
SUFFIXES = (".mp4", ".gif", ".webp", ".png")


def check_suffix(path: Path) -> None:
    """Fail before any work is done.

    Raises:
        ExportError: a suffix that is not in `SUFFIXES`, or a folder that does not exist.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ExportError(f"output={path}: suffix {path.suffix or '(none)'}; allowed are {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise ExportError(f"output={path}: the folder {path.parent} does not exist")


def write_orbit(path: Path, frames: UInt8[np.ndarray, "N H W"], fps: int) -> None:
    """Frames as the file that the suffix of `path` names; it appears whole or not at all.

    Args:
        path: .mp4 (H.264, yuv420p), .gif, .webp, or .png for a strip of `STRIP_FRAMES` of the frames.
        frames: grey values.
        fps: frames a second, 1 to 60; gif rounds the time of a frame to 10 ms.

    Raises:
        ExportError: unknown suffix, or the file cannot be written.
    """
    import imageio.v3 as iio

    check_suffix(path)
    suffix = path.suffix.lower()
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=suffix)
    os.close(handle)
    try:
        if suffix == ".mp4":
            # Odd sizes would be rescaled (blurred) by imageio, so pad to even; macro blocks of 2, not 16.
            even = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2)))
            coloured = np.repeat(even[..., None], 3, axis=-1)
            options = {
                "fps": fps,
                "codec": "libx264",
                "macro_block_size": 2,
                "output_params": ["-movflags", "+faststart"],
            }
            iio.imwrite(temporary, coloured, plugin="FFMPEG", **options)
        elif suffix == ".png":
            chosen = frames[np.linspace(0, len(frames), min(STRIP_FRAMES, len(frames)), endpoint=False).astype(int)]
            iio.imwrite(temporary, np.concatenate(list(chosen), axis=1))
        elif suffix == ".gif":
            iio.imwrite(temporary, frames, plugin="pillow", duration=1000 / fps, loop=0)
        else:
            iio.imwrite(temporary, frames, plugin="pillow", duration=1000 / fps, loop=0, lossless=True)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        raise ExportError(f"output={path}: cannot be written ({' '.join(str(error).split())[:200]})") from None
    finally:
        Path(temporary).unlink(missing_ok=True)
