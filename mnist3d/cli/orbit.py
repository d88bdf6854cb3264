"""Render a turning volume: video, animation, frames, or a strip of views. The last frame leads to the first."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch
from jaxtyping import Float

from ..data.images import load_images
from ..errors import ExportError
from ..evaluation import load_classifiers
from ..export.frames import GREY, TRANSPARENT, FrameStyle, orbit_frames
from ..export.paths import CAMERA_PATHS, camera_path
from ..export.video import FOLDER, KEEPS_TRANSPARENCY, ORBIT_FORMATS, SUFFIXES, check_orbit, write_orbit
from ..invocation import program_name
from ..rendering.renderer import render_views
from ..rendering.shading import StyleName
from ..runs.at_work import AtWork
from ..runs.loading import Run
from ..runs.trust import check_data_is_trusted, check_work_is_trusted
from ..storage.atomic import describe_file
from .tool_parser import (
    OneLineParser,
    add_sculpture_arguments,
    add_seed_argument,
    add_trust_argument,
    export_description,
    in_range,
    open_sculpture,
)


def readings(run: Run, rotations: Float[torch.Tensor, "B 3 3"]) -> list[str]:
    """What two classifiers read in each view: a class and how sure the less sure one is, or a dash."""
    held_out = load_images(run.config.data, run.renderer.options.image_size, "held_out")
    if held_out.labels is None:  # before classifiers are trained, which takes a minute
        raise ExportError("caption: this run's images have no classes, so nothing can be read in its views")
    classifiers = load_classifiers(held_out.images, held_out.labels, held_out.class_names)
    reading = classifiers.read(render_views(run.volume, run.renderer, rotations))
    return [
        f"{classifiers.class_names[int(label)]}  {confidence:.0%}" if legible else "-"
        for label, confidence, legible in zip(reading.label, reading.confidence.tolist(), reading.legible, strict=True)
    ]


def build_parser() -> OneLineParser:
    """All flags."""
    result = OneLineParser(prog=program_name("orbit"), description=__doc__)
    add_sculpture_arguments(result)
    add_trust_argument(result)
    result.add_argument(
        "--output",
        type=Path,
        default=Path("orbit.mp4"),
        help=f"file to write: {', '.join(SUFFIXES)} (a strip of views); without a suffix, a new folder of PNG frames "
        "(default %(default)s)",
    )
    ways = "; ".join(f"{name}: {what}" for name, (what, _) in CAMERA_PATHS.items())
    result.add_argument(
        "--path",
        default="turntable",
        help=f"camera path. {ways}. Or FILE.yaml, a list of keyframes in degrees such as {{azimuth: 90, elevation: 10, "
        "roll: 0} (default %(default)s)",
    )
    result.add_argument(
        "--frames", type=in_range(int, 2, 3600), default=120, help="number of frames, 2 to 3600 (default %(default)s)"
    )
    result.add_argument(
        "--fps",
        type=in_range(int, 1, 60),
        default=24,
        help="frames per second, 1 to 60; gif at most 50 (default %(default)s)",
    )
    result.add_argument(
        "--size",
        type=in_range(int, 8, 2048),
        default=256,
        help="edge of a frame in pixels, 8 to 2048 (default %(default)s)",
    )
    result.add_argument(
        "--supersample",
        type=in_range(int, 1, 8),
        default=1,
        help="render at this many times the size, then average down; 1 to 8 (default %(default)s)",
    )
    result.add_argument(
        "--style",
        choices=get_args(StyleName),
        default="exact",
        help="exact: what the discriminator sees; shaded: an object in the light of a lamp, bright matter ivory, black "
        "matter blue (default %(default)s)",
    )
    result.add_argument(
        "--colormap", default=GREY, help="gray, or a colormap of matplotlib such as inferno (default %(default)s)"
    )
    result.add_argument(
        "--background",
        help=f"colour behind the volume, such as white or #202428, or {TRANSPARENT} (webp, apng, png and frames only); "
        "default black",
    )
    result.add_argument(
        "--elevation",
        type=in_range(float, -90.0, 90.0),
        default=0.0,
        help="elevation of the camera path, degrees, -90 to 90 (default %(default)s)",
    )
    add_seed_argument(result, "random seed of --path seed_walk, >= 0")
    result.add_argument(
        "--caption", action="store_true", help="write below each view the class that two classifiers read in it"
    )
    return result


def main(arguments: Sequence[str]) -> None:
    """Parse, render, write, say where the file lies."""
    options = build_parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("mnist3d.evaluation").setLevel(logging.INFO)  # training the classifiers is announced
    suffix = check_orbit(options.output, options.fps)
    style = FrameStyle(options.size, options.supersample, options.colormap, options.background, options.style)
    style.check()
    if options.background == TRANSPARENT and suffix not in KEEPS_TRANSPARENCY:
        raise ExportError(f"background={TRANSPARENT}: not with {suffix}; .webp, .apng, .png and frames keep it")
    with AtWork("opening the volume") as work:
        run = open_sculpture(options.run, options.volume)
        elevation = math.radians(options.elevation)
        rotations = camera_path(
            options.path, options.frames, elevation=elevation, seed=options.seed, poses=run.config.poses
        )
        if options.caption:
            check_data_is_trusted(run.path, run.config.data, options.trust)
            check_work_is_trusted(run.path, run.renderer.options, run.volume, len(rotations), options.trust)
            work.tell(0.0, "reading the views")
        captions = readings(run, rotations) if options.caption else None
        frames = orbit_frames(run.volume, run.renderer, rotations, style, captions)
        shown = work.over(frames, len(rotations), f"{len(rotations)} frames")
        write_orbit(options.output, shown, options.fps, export_description(run))
    opens = ORBIT_FORMATS.get(suffix, FOLDER)
    length = "" if suffix == ".png" else f"; {options.frames} frames, {options.frames / options.fps:.1f} s"
    print(f"{describe_file(options.output, opens)}{length}")
