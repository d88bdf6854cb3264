"""Measure how good and how diverse the views of a volume are.

Prints a table, and writes scorecard.json, the view atlas and a turntable.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..data.images import load_images
from ..errors import ConfigError
from ..evaluation import (
    Classifiers,
    ImageScore,
    Scorecard,
    fixed_rotations,
    load_classifiers,
    score_views,
    turntable_strip,
    view_atlas,
)
from ..evaluation.classifiers import ZOOMS
from ..evaluation.scores import REFERENCE_LIMIT, VIEWS
from ..evaluation.view_atlas import ATLAS_VIEWS
from ..invocation import program_name
from ..rendering.renderer import AbsorptionRenderer
from ..runs.at_work import AtWork
from ..runs.scorecard import ROWS, SCORECARD_FILE
from ..runs.trust import check_data_is_trusted, check_work_is_trusted
from ..storage.labels import printable
from ..storage.run_directory import RunDirectory
from .tool_parser import OneLineParser, add_sculpture_arguments, add_trust_argument, in_range, open_sculpture

SOME_CLASSES = 5  # missing ones that are named


def table(card: Scorecard) -> str:
    """The scorecard as lines of text, one column a pose distribution, the last one real images."""
    columns: dict[str, ImageScore] = {**card.poses, "real images": card.real}
    lines = [f"{'':28}" + "".join(f"{name:>15}" for name in columns)]
    for key, (title, form) in ROWS.items():
        cells = [getattr(score, key) for score in columns.values()]
        lines.append(f"{title:28}" + "".join(f"{'-' if cell is None else form.format(cell):>15}" for cell in cells))
    for k, name in enumerate(card.class_names):
        cells = [(score.histogram or {}).get(name, 0.0) for score in columns.values()]
        title = "share of each class" if k == 0 else ""
        lines.append(f"{title:19} {printable(name)[:8]:>8}" + "".join(f"{cell:15.3f}" for cell in cells))
    return "\n".join([*lines, card.note] if card.note else lines)


def in_a_sentence(score: ImageScore) -> str:
    """What the figures say of the views of one distribution; empty where nothing was read."""
    if score.legible is None or score.histogram is None:
        return ""
    total, missing = len(score.histogram), [name for name, share in score.histogram.items() if share == 0.0]
    said = f"{100.0 * score.legible:.0f} % of the views can be read"
    if not missing:
        return f"{said}, and all {total} classes occur."
    if len(missing) == total:
        return f"{said}: no class occurs."
    absent = f"; not {', '.join(map(printable, missing))}" if len(missing) <= SOME_CLASSES else ""
    return f"{said}, and {total - len(missing)} of {total} classes occur{absent}."


def build_parser() -> OneLineParser:
    """All flags."""
    parser = OneLineParser(prog=program_name("score"), description=__doc__)
    add_sculpture_arguments(parser)
    add_trust_argument(parser)
    parser.add_argument(
        "--views",
        type=in_range(int, 2, 1_000_000),
        default=VIEWS,
        help="number of views of each pose distribution, >= 2 (default %(default)s)",
    )
    parser.add_argument("--output", type=Path, help="folder for the files; default the run directory")
    parser.add_argument(
        "--classifiers",
        type=Path,
        help="folder of the trained evaluation classifiers; default those of the package, then the user's cache",
    )
    return parser


def main(arguments: Sequence[str]) -> None:
    """Parse, score, print the table and where the files lie."""
    options = build_parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("mnist3d.evaluation").setLevel(logging.INFO)  # training the classifiers is announced
    for key in ("output", "classifiers"):  # before the work, which takes minutes
        folder = getattr(options, key)
        if folder is not None and folder.exists() and not folder.is_dir():
            raise ConfigError(f"{key}={folder}: must be a folder; give another name")
    with AtWork("opening the volume"):
        run = open_sculpture(options.run, options.volume)
        check_data_is_trusted(run.path, run.config.data, options.trust)
        rotations = fixed_rotations(run.config.poses, options.views)
        # More views are the user's own wish.
        rendered = min(options.views, VIEWS) * len(rotations) + ATLAS_VIEWS
        check_work_is_trusted(run.path, run.renderer.options, run.volume, rendered, options.trust)
        size = run.renderer.options.image_size
        held_out, training = (load_images(run.config.data, size, part) for part in ("held_out", "training"))
    with AtWork("training the classifiers") as work:
        images = (held_out.images, held_out.labels, held_out.class_names)
        classifiers = load_classifiers(*images, options.classifiers, tell=work.tell)
    views, real = sum(map(len, rotations.values())), 2 * min(len(training.images) // 2, REFERENCE_LIMIT)
    with _counted("reading the views", 2 * views + real, run.renderer, classifiers):
        card = score_views(run.volume, run.renderer, classifiers, training.images, rotations)
    print(table(card))
    folder = RunDirectory(options.output or run.path)
    written = [folder.write_json(SCORECARD_FILE, card.as_dict())]
    with _counted("drawing the view atlas", 2 * ATLAS_VIEWS, run.renderer, classifiers):
        atlas = view_atlas(run.volume, run.renderer, classifiers)
        strip = turntable_strip(run.volume, run.renderer, classifiers)
    written += [folder.write_picture("atlas.png", atlas), folder.write_picture("turntable_read.png", strip)]
    print(*written, sep="\n")
    if said := in_a_sentence(card.poses[run.config.poses.name]):
        print(said)


@contextmanager
def _counted(doing: str, total: int, renderer: AbsorptionRenderer, classifiers: Classifiers) -> Iterator[None]:
    """Say how far the block is, by each view that is rendered and each image that is read.

    Args:
        doing: what it does.
        total: of views and images, about.
        renderer: of the views.
        classifiers: read the images, each network in several sizes.
    """
    done, share = 0.0, 1.0 / (len(classifiers.networks) * len(ZOOMS))

    def count(images: int, factor: float) -> None:
        nonlocal done
        done += factor * images
        work.tell(min(done / total, 1.0))

    hooks = [renderer.register_forward_hook(lambda _, asked, views: count(len(views), 1.0))]
    hooks += [
        each.register_forward_hook(lambda _, asked, said: count(len(said[0]), share)) for each in classifiers.networks
    ]
    try:
        with AtWork(doing) as work:
            yield
    finally:
        for hook in hooks:
            hook.remove()
