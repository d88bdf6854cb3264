"""Turn a sculpture once around its vertical axis: mp4, gif, webp, or a png strip."""

from collections.abc import Sequence
from pathlib import Path

from mnist3d.command_line import OneLineParser, add_sculpture_arguments, in_range, open_sculpture, run_command_line
from mnist3d.export.pictures import to_uint8
from mnist3d.export.video import SUFFIXES, check_suffix, write_orbit
from mnist3d.poses import turntable
from mnist3d.renderer import AbsorptionRenderer, render_views


def main(arguments: Sequence[str]) -> None:
    """Parse, render, write, say where the file lies."""
    parser = OneLineParser(prog="render_orbit.py", description=__doc__)
    add_sculpture_arguments(parser)
    parser.add_argument(
        "--output", type=Path, default=Path("orbit.mp4"), help=f"{', '.join(SUFFIXES)} (default %(default)s)"
    )
    parser.add_argument("--frames", type=in_range(int, 2, 3600), default=120, help="2 to 3600 (default %(default)s)")
    parser.add_argument("--fps", type=in_range(int, 1, 60), default=24, help="1 to 60 (default %(default)s)")
    parser.add_argument(
        "--size", type=in_range(int, 8, 2048), default=256, help="pixels, 8 to 2048 (default %(default)s)"
    )
    parser.add_argument(
        "--elevation", type=in_range(float, -1.6, 1.6), default=0.0, help="radians, -1.6 to 1.6 (default %(default)s)"
    )
    options = parser.parse_args(arguments)
    check_suffix(options.output)
    run = open_sculpture(options.run, options.volume)
    renderer = AbsorptionRenderer(options.size, run.renderer.options.samples_per_ray)
    views = render_views(run.volume, renderer, turntable(options.frames, options.elevation))
    write_orbit(options.output, to_uint8(views[:, 0]), options.fps)
    print(f"{options.output}: {options.output.stat().st_size / 1024:.0f} KiB, {options.frames} frames")


if __name__ == "__main__":
    run_command_line(main)
