"""Orbits as mp4, webm, gif, webp, apng, a folder of PNG frames, or a PNG strip.

Frames -> the file that its suffix names. `paths` chooses the way around the volume, `frames` renders.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, pairwise
from operator import length_hint
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ..errors import ExportError
from ..storage import check_folder, check_output, require, suffix_of, whole_files, write_description
from ..storage.memory import check_fits

Frame = UInt8[np.ndarray, "..."]
# Of Frame. A type checker that looked at an item of a generator would swallow an image.
Frames = Iterable[Any]
STRIP_FRAMES = 12  # views in a .png strip: as many as can be told apart at a glance
COPIES = 2  # of the frames of an animation while it is written
GIF_FASTEST = 50  # frames a second: browsers show shorter frames than 20 ms slowly
CODECS = {
    # Flat areas of a turning sculpture band visibly at the encoders' defaults.
    ".mp4": ("libx264", ["-crf", "16", "-preset", "slow", "-movflags", "+faststart"]),
    ".webm": ("libvpx-vp9", ["-crf", "22", "-b:v", "0", "-row-mt", "1", "-deadline", "good", "-cpu-used", "3"]),
}
ORBIT_FORMATS: dict[str, str] = {
    ".mp4": "every browser and player (H.264)",
    ".webm": "browsers, VLC (VP9)",
    ".gif": "everything; at most 50 frames a second",
    ".webp": "browsers (animated, lossless)",
    ".apng": "browsers (animated, lossless)",
    ".png": f"everything: at most {STRIP_FRAMES} views side by side",
}
FOLDER = "everything, frame by frame"
SUFFIXES = tuple(ORBIT_FORMATS)
KEEPS_TRANSPARENCY = (".webp", ".apng", ".png", "")


def check_orbit(path: Path, fps: int = 24) -> str:
    """Fail before any work is done; returns the suffix, "" for a folder of frames.

    Raises:
        ExportError: a suffix that is not in `ORBIT_FORMATS`, a folder that does not exist or holds something already,
            too many frames a second for a gif.
    """
    if path.suffix == "":
        check_folder(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ExportError(
                f"output={path}: exists; frames go into a new folder, a single file has one of {', '.join(SUFFIXES)}"
            )
        return ""
    try:
        suffix = suffix_of(path, SUFFIXES)
    except ExportError as error:
        raise ExportError(f"{error}, or none for a folder of frames") from None
    check_output(path, SUFFIXES)
    if suffix in CODECS:
        require("imageio_ffmpeg", f"a {suffix} video", "imageio-ffmpeg", remedy="pip install imageio-ffmpeg")
    if suffix == ".gif" and fps > GIF_FASTEST:
        raise ExportError(f"fps={fps}: a gif has at most {GIF_FASTEST} frames a second")
    return suffix


def write_orbit(path: str | Path, frames: Frames, fps: int, description: dict[str, Any] | None = None) -> int:
    """Frames as the file that the suffix of `path` names; it appears whole or not at all.

    Args:
        path: see `ORBIT_FORMATS`; without a suffix a new folder of PNG files.
        frames: (H, W) grey, (H, W, 3) colour or, for webp, apng and PNG, (H, W, 4) with transparency; at least one,
            all of one size, taken one at a time. Videos are padded to even sizes with the border's colour.
        fps: frames a second, 1 to 60; gif rounds each time to 10 ms, their sum not.
        description: written beside the file as PATH.json, in a folder as export.json.

    Returns:
        The number of frames.

    Raises:
        ExportError: an output as `check_orbit` refuses it.
        WriteError: the disk is full, the folder cannot be written, or the encoder failed.
    """
    path = Path(path)
    suffix = check_orbit(path, fps)
    counted = _Counted(frames)
    with whole_files(path) as folder:
        name = path.name
        if suffix == "":
            inner = folder / name
            inner.mkdir()
            for k, frame in enumerate(counted):
                Image.fromarray(frame).save(inner / f"frame_{k:05d}.png")
            if description is not None:
                write_description(inner, "export", {**description, "format": "folder", "fps": fps})
        else:
            _WRITERS[suffix](folder / name, counted, fps)
            if description is not None:
                written = {**description, "format": suffix, "fps": fps, "frames": counted.count}
                write_description(folder, name, written)
    return counted.count


class _Counted:
    """An iterable that knows afterwards how long it was; `expected` says before, 0 where the frames do not tell."""

    def __init__(self, frames: Frames) -> None:
        self.frames, self.count, self.expected = frames, 0, length_hint(frames)

    def __iter__(self) -> Iterator[Frame]:
        for frame in self.frames:
            self.count += 1
            yield frame


def _write_video(path: Path, frames: _Counted, fps: int) -> None:
    """By ffmpeg, which imageio-ffmpeg brings along; frames go through a pipe, one at a time."""
    import imageio_ffmpeg

    codec, options = CODECS[path.suffix.lower()]
    iterator = (_even(frame) for frame in frames)
    first = next(iterator)
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (first.shape[1], first.shape[0]),
        fps=fps,
        codec=codec,
        quality=None,  # pyright: ignore[reportArgumentType]  (None: ours stands in the options)
        macro_block_size=2,  # 16 would rescale, which blurs
        ffmpeg_log_level="error",
        output_params=options,
    )
    writer.send(None)
    try:
        for frame in chain([first], iterator):
            writer.send(frame)
    except OSError as error:
        raise OSError(f"ffmpeg: {error}") from None
    finally:  # after a signal too: ffmpeg must end before its folder goes
        writer.close()
    if not path.is_file() or path.stat().st_size == 0:
        raise OSError("ffmpeg wrote nothing: the disk is full, or its encoder failed")


def _even(frame: Frame) -> UInt8[np.ndarray, "H W 3"]:
    """Three channels and even edges, as yuv420p needs."""
    grey = np.repeat(frame[..., None], 3, axis=-1) if frame.ndim == 2 else frame[..., :3]
    padding = [(0, grey.shape[0] % 2), (0, grey.shape[1] % 2), (0, 0)]
    return np.ascontiguousarray(np.pad(grey, padding, mode="edge"))


def _write_animation(path: Path, frames: _Counted, fps: int) -> None:
    """By Pillow, lossless but for the palette of a coloured gif; it needs all frames at once, and copies them."""
    suffix, images = path.suffix.lower(), []
    for frame in frames:
        if not images:
            what = f"frames={frames.expected}: so many of {frame.shape[1]}x{frame.shape[0]} pixels take"
            remedy = "lower frames or size, or give the output the suffix .mp4, whose frames are written one by one"
            check_fits(COPIES * frames.expected * frame.nbytes, what, remedy, ExportError)
        images.append(Image.fromarray(frame))
    tick = 10 if suffix == ".gif" else 1  # ms
    ends = [round(k * 1000 / fps / tick) * tick for k in range(len(images) + 1)]
    durations = [late - early for early, late in pairwise(ends)]
    images = _with_one_palette(images) if suffix == ".gif" else images
    # A grey gif keeps one palette of 256 greys: of dark frames' shortened ones Pillow's reader says another mode (L)
    # than it then loads (P), and whoever asks for the pixels first, as imageio does, gets an error.
    options: dict[str, Any] = {".webp": {"lossless": True}, ".gif": {"optimize": False}}.get(suffix, {})
    kind = {".gif": "GIF", ".webp": "WEBP", ".apng": "PNG"}[suffix]
    images[0].save(path, kind, save_all=True, append_images=images[1:], duration=durations, loop=0, **options)


def _with_one_palette(images: list[Image.Image]) -> list[Image.Image]:
    """Frames of more colours than a gif's frame has, in the 256 that suit all of them best.

    A palette for each frame, which Pillow makes, flickers and takes half as much room again, and so does dithering.
    Frames of fewer colours are kept, as they lose nothing.
    """
    if images[0].mode != "RGB" or all(image.getcolors(256) is not None for image in images):
        return images
    seen = np.concatenate([np.asarray(images[k]) for k in _chosen(len(images))])
    palette = Image.fromarray(seen).quantize(256, Image.Quantize.MEDIANCUT)
    return [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]


def _write_strip(path: Path, frames: _Counted, fps: int) -> None:
    every = _chosen(frames.expected) if frames.expected else None
    kept = {k: frame for k, frame in enumerate(frames) if every is None or k in every}
    Image.fromarray(np.concatenate([kept[k] for k in _chosen(frames.count)], axis=1)).save(path, "PNG")


def _chosen(count: int) -> list[int]:
    """Which of so many frames a strip shows."""
    return np.linspace(0, count, min(STRIP_FRAMES, count), endpoint=False).astype(int).tolist()


_WRITERS: dict[str, Callable[[Path, _Counted, int], None]] = {
    ".mp4": _write_video,
    ".webm": _write_video,
    ".gif": _write_animation,
    ".webp": _write_animation,
    ".apng": _write_animation,
    ".png": _write_strip,
}
