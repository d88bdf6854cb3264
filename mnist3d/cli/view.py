"""Show a finished volume: serve a page on which you can turn it, or write a picture of forty views."""

import os
import sys
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from jaxtyping import UInt8

from ..errors import ConfigError, UserError, ViewerError
from ..invocation import program_name
from ..rendering import AbsorptionRenderer, StyleName, for_few_views
from ..rendering.pictures import SHEET_VIEWS, contact_sheet, sheet_views
from ..rendering.renderer import MAX_IMAGE_SIZE
from ..runs.building import RUNS_ROOT
from ..runs.gallery import Gallery, scene_of
from ..runs.loading import Run
from ..runs.trust import check_work_is_trusted
from ..storage.atomic import write_atomically
from ..storage.labels import printable
from ..storage.run_directory import latest_run, png_bytes
from ..viewer import Viewer, ViewerOptions
from .tool_parser import (
    OneLineParser,
    add_port_argument,
    add_sculpture_arguments,
    add_trust_argument,
    open_sculpture,
)

MAGNIFY = 3  # screen pixels along each edge of a pixel of the snapshot


def build_parser() -> OneLineParser:
    """All flags."""
    default = ViewerOptions()
    parser = OneLineParser(prog=program_name("view"), description=__doc__)
    add_sculpture_arguments(parser, default=f"default the newest run under {RUNS_ROOT}/")
    add_trust_argument(parser)
    parser.add_argument(
        "--snapshot",
        type=Path,
        metavar="FILE.png",
        help="write 40 views as one picture, and exit without serving a page",
    )
    parser.add_argument(
        "--style",
        choices=get_args(StyleName),
        default="exact",
        help="of the snapshot. exact: what the discriminator sees; shaded: an object in the light of a lamp, bright "
        "matter ivory, black matter blue (default %(default)s)",
    )
    add_port_argument(parser, "--port", default.port)
    parser.add_argument(
        "--host",
        default=default.host,
        help="address to listen on; 0.0.0.0 lets other machines open the page (default %(default)s)",
    )
    parser.add_argument("--read_only", action="store_true", help="nobody can download anything on the page")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Parse, load, then write the snapshot or serve the page until Ctrl-C."""
    options = build_parser().parse_args(arguments)
    if options.snapshot is not None and options.snapshot.suffix.lower() != ".png":
        raise ConfigError(f"snapshot={options.snapshot}: it is a picture; give a name that ends in .png")
    passed_over: list[str] = []
    if options.run or options.snapshot is not None:  # views of another run than the newest would look like its own
        path = Path(options.run or latest_run(RUNS_ROOT))
        run = open_sculpture(path, options.volume)
    else:
        path, run, passed_over = _newest_that_opens(options.volume)
    if options.snapshot is not None:
        check_work_is_trusted(path, run.renderer.options, run.volume, SHEET_VIEWS, options.trust)
        written = write_atomically(options.snapshot, png_bytes(_snapshot(run, options.style)))
        print(printable(f"40 views of {path}: {written}"))
        return
    name = path.name if path.resolve().parent == Path(RUNS_ROOT).resolve() else str(path)
    try:
        gallery = Gallery(RUNS_ROOT, trusted=[type(run.volume)], trust=path if options.trust else None)
        served = ViewerOptions(port=options.port, host=options.host, read_only=options.read_only)
        scene = scene_of(run, name, options.trust)
        more = f" ({len(passed_over) - 1} more: see the terminal)" if len(passed_over) > 1 else ""
        scene.notice = passed_over[0] + more if passed_over else ""
        viewer = Viewer(served, shelf=gallery, first=scene)
        viewer.start()
    except (ViewerError, ValueError) as error:
        raise ConfigError(f"no page: {error}") from None
    try:  # whoever reads the address may press Ctrl-C at once
        print(printable(f"{path}: {viewer.access.printed_url} (Ctrl-C ends)"), flush=True)
        if not viewer.access.local:
            print(viewer.access.who_can_open(live=False), file=sys.stderr, flush=True)
        if sys.stdout.isatty() and (sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY")):
            webbrowser.open(viewer.access.url_for_browser())
        threading.Event().wait()
    except KeyboardInterrupt:
        return  # the way to end it, not a mistake
    finally:
        viewer.close()


def _snapshot(run: Run, style: StyleName) -> UInt8[np.ndarray, "..."]:
    """A contact sheet of forty views; shaded ones are rendered finer instead of magnified."""
    if style == "exact":
        renderer = for_few_views(run.renderer, run.volume, SHEET_VIEWS)
        return contact_sheet(sheet_views(run.volume, renderer, run.config.poses), columns=8, magnify=MAGNIFY)
    wanted = run.renderer.options
    size = min(MAGNIFY * wanted.image_size, MAX_IMAGE_SIZE)
    fine = AbsorptionRenderer(size, wanted.samples_per_ray, wanted.quadrature)
    return contact_sheet(sheet_views(run.volume, fine, run.config.poses, style), columns=8, magnify=1)


def _newest_that_opens(volume: str | None) -> tuple[Path, Run, list[str]]:
    """The newest run; one that is damaged or of a class that is not trusted is named, and the next one is taken.

    Args:
        volume: class path that the user trusts, or None.

    Returns:
        Its folder, the run, and a line for each newer one, which is also printed.

    Raises:
        ConfigError, RunError, VolumeFileError: no run opens; what is wrong with the newest.
    """
    failed: list[tuple[Path, UserError]] = []
    for name in Gallery(RUNS_ROOT).names() or [latest_run(RUNS_ROOT).name]:  # which says where there is none
        path = Path(RUNS_ROOT) / name
        try:
            run = open_sculpture(path, volume)
        except UserError as error:
            failed.append((path, error))
            continue
        lines = [printable(f"{newer} is left out: {error}") for newer, error in failed]
        for line in lines:
            print(line, file=sys.stderr, flush=True)
        return path, run, lines
    raise failed[0][1]
