"""Write a volume as a cloud of points, for engraving in glass and for point viewers."""

from collections.abc import Sequence
from pathlib import Path

from ..export import POINT_FORMATS, export_points
from ..export.points import COUNT, MAX_COUNT, MIN_DISTANCE_MM, SIZE_MM
from ..invocation import program_name
from ..runs.at_work import AtWork
from ..storage.atomic import check_output, describe_file
from .tool_parser import (
    OneLineParser,
    add_sculpture_arguments,
    add_seed_argument,
    export_description,
    in_range,
    open_sculpture,
)


def build_parser() -> OneLineParser:
    """All flags."""
    parser = OneLineParser(prog=program_name("points"), description=__doc__)
    add_sculpture_arguments(parser)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("sculpture.ply"),
        help=f"file to write: {', '.join(POINT_FORMATS)} (default %(default)s)",
    )
    parser.add_argument(
        "--count",
        type=in_range(int, 2, MAX_COUNT),
        default=COUNT,
        help=f"points, 2 to {MAX_COUNT}; fewer are written where no more fit (default %(default)s)",
    )
    parser.add_argument(
        "--min_distance_mm",
        type=in_range(float, 0.0, 1e3),
        default=MIN_DISTANCE_MM,
        help="no two points are nearer to each other, in mm, 0 to 1000 (default %(default)s)",
    )
    parser.add_argument(
        "--size_mm",
        type=in_range(float, 0.1, 1e4),
        default=SIZE_MM,
        help="diameter of the ball that holds the volume in mm, 0.1 to 10000; the points may take less "
        "(default %(default)s)",
    )
    add_seed_argument(parser, "of the random numbers; the same seed gives the same points")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Parse, place, write, say what came out."""
    options = build_parser().parse_args(arguments)
    suffix = check_output(options.output, POINT_FORMATS)
    with AtWork("opening the volume") as work:
        run = open_sculpture(options.run, options.volume)
        report = export_points(
            run.volume,
            options.output,
            count=options.count,
            min_distance_mm=options.min_distance_mm,
            size_mm=options.size_mm,
            seed=options.seed,
            description=export_description(run),
            tell=work.tell,
        )
    print(*report.lines(), sep="\n")
    print(describe_file(options.output, POINT_FORMATS[suffix]))
