"""Write the surface of a volume as a mesh, and say whether it can be printed."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..export import MESH_FORMATS, export_mesh
from ..export.connect import MIN_WALL_MM
from ..export.mesh import MAX_SMOOTHING, SIZE_MM
from ..export.sampling import FIELD_RESOLUTION, MAX_RESOLUTION
from ..export.solid import Matter
from ..invocation import program_name
from ..runs.at_work import AtWork
from ..storage.atomic import check_output, describe_file
from .tool_parser import OneLineParser, add_sculpture_arguments, export_description, in_range, open_sculpture

LARGEST_LEVEL = 1e6
RECOGNISED = 0.5  # likeness; in docs/gallery.md meshes have .30 to .48 without the black matter, .65 to .71 with it


def level_or_auto(text: str) -> float | None:
    """A level, or None for auto."""
    try:
        return None if text == "auto" else in_range(float, 1e-6, LARGEST_LEVEL)(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or auto") from None


def build_parser() -> OneLineParser:
    """All flags."""
    parser = OneLineParser(prog=program_name("mesh"), description=__doc__)
    add_sculpture_arguments(parser)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("sculpture.stl"),
        help=f"file to write: {', '.join(MESH_FORMATS)} (default %(default)s)",
    )
    parser.add_argument(
        "--level",
        type=level_or_auto,
        help=f"attenuation at the surface, per world unit, 1e-6 to {LARGEST_LEVEL:g}; auto takes the level at which "
        "the mesh looks most like the views (default auto)",
    )
    parser.add_argument(
        "--matter",
        choices=("bright", "all"),
        default="bright",
        help="bright: without the black parts, for printing in one colour; all: with them, and with vertex colours in "
        "ply, obj and glb, which looks like the views (default %(default)s)",
    )
    parser.add_argument(
        "--resolution",
        type=in_range(int, 2, MAX_RESOLUTION),
        help=f"voxels along the longest edge, 2 to {MAX_RESOLUTION}; default a grid's own, {FIELD_RESOLUTION} for a "
        "field",
    )
    parser.add_argument(
        "--smoothing",
        type=in_range(int, 0, MAX_SMOOTHING),
        default=0,
        help=f"passes of Taubin's smoothing filter, 0 to {MAX_SMOOTHING} (default %(default)s)",
    )
    parser.add_argument(
        "--connect",
        choices=("none", "bridges"),
        default="none",
        help="bridges: one piece for a printer; crumbs are dropped, hollows filled, thin walls thickened, and "
        "the pieces joined by the shortest bridges (default %(default)s)",
    )
    parser.add_argument(
        "--min_wall_mm",
        type=in_range(float, 0.1, 1e3),
        default=MIN_WALL_MM,
        help="with --connect: thinnest wall, and thickness of the bridges, in mm, 0.1 to a sixth of --size_mm "
        "(default %(default)s)",
    )
    parser.add_argument("--largest", action="store_true", help="keep only the largest piece")
    parser.add_argument(
        "--size_mm",
        type=in_range(float, 0.1, 1e4),
        default=SIZE_MM,
        help="longest edge of the bounding box in mm, 0.1 to 10000 (default %(default)s)",
    )
    return parser


def in_print(match: float | None, matter: Matter) -> list[str]:
    """A line where little of the views is left in the mesh."""
    if match is None or match >= RECOGNISED:
        return []
    more_matter = "--matter all, or " if matter == "bright" else ""
    return [f"in print        few of the views will be recognised; better: {more_matter}a sculpture with fewer targets"]


def main(arguments: Sequence[str]) -> None:
    """Parse, contour, write, say what came out."""
    options = build_parser().parse_args(arguments)
    suffix = check_output(options.output, MESH_FORMATS)
    with AtWork("opening the volume") as work:
        run = open_sculpture(options.run, options.volume)
        report = export_mesh(
            run.volume,
            options.output,
            level=options.level,
            matter=options.matter,
            resolution=options.resolution,
            smoothing=options.smoothing,
            largest_only=options.largest,
            size_mm=options.size_mm,
            connect=options.connect,
            min_wall_mm=options.min_wall_mm,
            description=export_description(run),
            tell=work.tell,
        )
    print(*report.lines(), *in_print(report.match, options.matter), sep="\n")
    print(describe_file(options.output, MESH_FORMATS[suffix]))
