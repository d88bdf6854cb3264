"""Write a volume as voxels for other programs, and say which of them open the file."""

from collections.abc import Sequence
from pathlib import Path

from ..export import VOXEL_FORMATS, export_voxels
from ..export.sampling import FIELD_RESOLUTION, MAX_RESOLUTION
from ..invocation import program_name
from ..runs.at_work import AtWork
from ..storage.atomic import check_output, describe_file
from .tool_parser import OneLineParser, add_sculpture_arguments, export_description, in_range, open_sculpture


def build_parser() -> OneLineParser:
    """All flags."""
    parser = OneLineParser(prog=program_name("voxels"), description=__doc__)
    add_sculpture_arguments(parser)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("sculpture.npz"),
        help=f"file to write: {', '.join(VOXEL_FORMATS)} (default %(default)s)",
    )
    parser.add_argument(
        "--resolution",
        type=in_range(int, 1, MAX_RESOLUTION),
        help=f"voxels along the longest edge, 1 to {MAX_RESOLUTION}; default a grid's own, {FIELD_RESOLUTION} for a "
        "field (.vox: at most 256)",
    )
    parser.add_argument(
        "--voxel_size_mm",
        type=in_range(float, 1e-6, 1e6),
        help="edge of a voxel in mm, 1e-6 to 1e6; by default lengths are in world units, and the volume is 2 wide",
    )
    return parser


def main(arguments: Sequence[str]) -> None:
    """Parse, sample, write, say where the file lies and what opens it."""
    options = build_parser().parse_args(arguments)
    suffix = check_output(options.output, VOXEL_FORMATS)
    with AtWork("opening the volume") as work:
        run = open_sculpture(options.run, options.volume)
        export_voxels(
            run.volume,
            options.output,
            resolution=options.resolution,
            voxel_size_mm=options.voxel_size_mm,
            description=export_description(run),
            tell=work.tell,
        )
    print(describe_file(options.output, VOXEL_FORMATS[suffix].opens_with))
