"""Write a volume as one HTML file, to turn it in any browser without a server or a network."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import ExportError
from ..export.page import MAX_RESOLUTION, page_html
from ..export.shares import part
from ..invocation import program_name
from ..runs.at_work import AtWork
from ..storage.atomic import write_atomically
from .tool_parser import OneLineParser, add_sculpture_arguments, in_range, open_sculpture


def build_parser() -> OneLineParser:
    """All flags."""
    parser = OneLineParser(prog=program_name("page"), description=__doc__)
    add_sculpture_arguments(parser)
    parser.add_argument(
        "--output", type=Path, default=Path("sculpture.html"), help="file to write, .html (default %(default)s)"
    )
    parser.add_argument(
        "--resolution",
        type=in_range(int, 2, MAX_RESOLUTION),
        help=f"voxels along the longest edge, 2 to {MAX_RESOLUTION}; default the volume's own, 64 for a field",
    )
    parser.add_argument("--title", help="title on the page; default the name of the run")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Parse, write, say where the file lies."""
    options = build_parser().parse_args(arguments)
    if options.output.suffix.lower() not in (".html", ".htm"):
        raise ExportError(f"output={options.output}: it is a page; give a name that ends in .html")
    if not options.output.parent.is_dir():
        raise ExportError(f"output={options.output}: the folder {options.output.parent} does not exist")
    with AtWork("opening the volume") as work:
        run = open_sculpture(options.run, options.volume)
        title = options.title or run.path.resolve().name
        page = page_html(run.volume, run.renderer.options, title, options.resolution, part(work.tell, 0.0, 0.9))
        work.tell(0.9, f"writing {options.output.name}")
        write_atomically(options.output, page.encode())
    print(f"{options.output}: {options.output.stat().st_size / 1024:.0f} KiB; open it in a browser, or send it on")
