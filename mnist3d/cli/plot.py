"""Draw the losses, the scores over time and the view atlas of a run; for a volume file, only the atlas."""

import sys
from collections.abc import Sequence
from pathlib import Path

from ..data.images import load_images
from ..errors import DataError, RunError
from ..evaluation import cached_classifiers, view_atlas
from ..evaluation.view_atlas import ATLAS_VIEWS, COLUMNS, ROWS, class_colour
from ..export.plots import PLOT_FORMATS, plot_run
from ..invocation import program_name
from ..runs.at_work import AtWork
from ..runs.trust import acts_of_data, check_work_is_trusted
from ..storage.atomic import check_output, describe_file
from ..storage.optional import require
from ..storage.run_directory import RunDirectory
from .tool_parser import OneLineParser, add_sculpture_arguments, add_trust_argument, export_description, open_sculpture
from .which_run import which_run


def build_parser() -> OneLineParser:
    """All flags."""
    parser = OneLineParser(prog=program_name("plot"), description=__doc__)
    add_sculpture_arguments(parser)
    add_trust_argument(parser)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("run.png"),
        help=f"file to write: {', '.join(PLOT_FORMATS)} (default %(default)s)",
    )
    return parser


def main(arguments: Sequence[str]) -> None:
    """Parse, draw, say where the figure lies."""
    options = build_parser().parse_args(arguments)
    suffix = check_output(options.output, PLOT_FORMATS)
    require("matplotlib", "plots")  # before the atlas, which takes a while
    path = which_run(options.run)
    run = open_sculpture(path, options.volume)
    alone = path.is_file()  # then neither its records nor its images are known
    records = [] if alone else RunDirectory(run.path).read_stats()
    if not records and not alone:
        raise RunError(f"{run.path}: stats.jsonl holds nothing to draw; it is written while a run goes on")
    classifiers, trusted = None, options.trust or not acts_of_data(run.config.data)
    rendered = ATLAS_VIEWS if trusted and not alone else COLUMNS * ROWS
    check_work_is_trusted(run.path, run.renderer.options, run.volume, rendered, options.trust)
    if not trusted and not alone:
        note = "the atlas comes without a map of what is read: its images are read or downloaded only with --trust"
        print(f"{run.path}: {note}", file=sys.stderr)
    with AtWork("drawing the view atlas") as work:
        if trusted and not alone:
            try:
                held_out = load_images(run.config.data, run.renderer.options.image_size, "held_out")
                classifiers = cached_classifiers(held_out.images, held_out.labels, held_out.class_names)
            except DataError:
                pass  # the images are not here: the atlas comes without a map of what is read
        atlas = view_atlas(run.volume, run.renderer, classifiers)
        work.tell(0.0, f"drawing {options.output.name}")
        step = run.origin["step"] or (records[-1].get("step") if records else None)
        title = run.origin["run"] + ("" if step is None else f", {step} steps")
        names = classifiers.class_names if classifiers else []
        colours = [class_colour(index) for index in range(max(10, len(names)))]
        plot_run(options.output, records, title, atlas, names, export_description(run), colours)
    print(describe_file(options.output, PLOT_FORMATS[suffix]))
