"""Show a finished volume: serve a page on which you can turn it, or write a picture of forty views."""

import os
import sys
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from ..errors import ConfigError, ViewerError
from ..invocation import program_name
from ..rendering import for_few_views
from ..rendering.pictures import SHEET_VIEWS, contact_sheet, sheet_views
from ..runs.building import RUNS_ROOT
from ..runs.gallery import Gallery, scene_of
from ..storage.atomic import write_atomically
from ..storage.run_directory import latest_run, png_bytes
from ..viewer import Viewer, ViewerOptions
from .tool_parser import OneLineParser, add_sculpture_arguments, in_range, open_sculpture


def build_parser() -> OneLineParser:
    """All flags."""
    default = ViewerOptions()
    parser = OneLineParser(prog=program_name("view"), description=__doc__)
    add_sculpture_arguments(parser, default=f"default the newest run under {RUNS_ROOT}/")
    parser.add_argument(
        "--snapshot",
        type=Path,
        metavar="FILE.png",
        help="write 40 views as one picture, and exit without serving a page",
    )
    parser.add_argument(
        "--port",
        type=in_range(int, 0, 65535),
        default=default.port,
        help="port of the page, 0 to 65535; if it is taken, the next free one (default %(default)s)",
    )
    parser.add_argument(
        "--host",
        default=default.host,
        help="address to listen on; 0.0.0.0 lets other machines open the page (default %(default)s)",
    )
    return parser


def main(arguments: Sequence[str]) -> None:
    """Parse, load, then write the snapshot or serve the page until Ctrl-C."""
    options = build_parser().parse_args(arguments)
    if options.snapshot is not None and options.snapshot.suffix.lower() != ".png":
        raise ConfigError(f"snapshot={options.snapshot}: it is a picture; give a name that ends in .png")
    path = Path(options.run or latest_run(RUNS_ROOT))
    run = open_sculpture(path, options.volume)
    if options.snapshot is not None:
        renderer = for_few_views(run.renderer, run.volume, SHEET_VIEWS)
        sheet = contact_sheet(sheet_views(run.volume, renderer, run.config.poses), columns=8)
        print(f"40 views of {path}: {write_atomically(options.snapshot, png_bytes(sheet))}")
        return
    name = path.name if path.resolve().parent == Path(RUNS_ROOT).resolve() else str(path)
    try:
        gallery = Gallery(RUNS_ROOT, trusted=[type(run.volume)])
        viewer = Viewer(ViewerOptions(port=options.port, host=options.host), shelf=gallery, first=scene_of(run, name))
        url = viewer.start()
    except (ViewerError, ValueError) as error:
        raise ConfigError(f"no page: {error}") from None
    try:  # whoever reads the address may press Ctrl-C at once
        print(f"{path}: {url} (Ctrl-C ends)", flush=True)
        if sys.stdout.isatty() and (sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY")):
            webbrowser.open(url)
        threading.Event().wait()
    except KeyboardInterrupt:
        return  # the way to end it, not a mistake
    finally:
        viewer.close()
