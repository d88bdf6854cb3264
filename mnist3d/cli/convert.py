"""Write a volume as one of another kind: fit the field that you name to it, and say how like the views are."""

import argparse
import copy
import dataclasses
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..distillation import FitOptions, Fitting, Source, psnr_of_views
from ..errors import ConfigError, VolumeFileError
from ..formats.picking import split_pick
from ..formats.reading import READERS
from ..invocation import program_name, to_type
from ..rendering.renderer import AbsorptionRenderer
from ..runs.at_work import AtWork
from ..runs.class_paths import import_volume_class
from ..runs.loading import load_sculpture
from ..runs.memory import COPIES_WHILE_BUILT, COPIES_WHILE_TAKEN, check_fit
from ..runs.signals import Ended
from ..storage.atomic import check_output
from ..storage.labels import printable
from ..storage.plain_files import size_in_words
from ..volumes import OWN_VOLUMES, SparseGrid, Volume, VoxelGrid
from ..volumes.same_class import take_weights, unlike
from .tool_parser import OneLineParser, add_run_argument, in_range
from .volume_arguments import add_arguments_of, parsed_with_volume
from .which_run import which_run

# Compared at the end. On the CPU only the lowest 32 bits of a seed count, so this is one that nobody gives a fit by
# chance: its views are others than those that it learns from.
VIEWS, SEED = 100, 0x5EB1C0DE
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Given:
    """What is converted.

    Args:
        volume: nothing of it learns.
        renderer: of its views.
        origin: as of `Run`.
        size: of its file, bytes.
    """

    volume: Volume
    renderer: AbsorptionRenderer
    origin: dict[str, Any]
    size: int


def build_parser(volume: type[Volume] | None = None) -> OneLineParser:
    """All flags.

    Args:
        volume: the class that is named; None: those of all our own are taken too, and none is shown.
    """
    parser = OneLineParser(
        prog=program_name("convert"),
        description=__doc__,
        epilog="For the options of a class, type --volume CLASS_PATH --help. Ctrl-C ends the fit, and writes the best "
        "so far.",
    )
    add_run_argument(parser, also="voxel file of another tool such as map.mrc, ")
    parser.add_argument(
        "--volume",
        metavar="CLASS_PATH",
        help=f"class to convert to: {', '.join(OWN_VOLUMES)}, or package.Class of another package; must be given. Its "
        "arguments are flags such as --volume.resolution 64",
    )
    parser.add_argument(
        "--from_volume",
        metavar="CLASS_PATH",
        help="class of the volume that is converted, package.Class, if it is not one of mnist3d; this imports its "
        "code, so name only a class that you trust",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(f"converted{SUFFIX}"),
        help=f"volume file to write, {SUFFIX} (default %(default)s)",
    )
    parser.add_argument(
        "--steps",
        type=in_range(int, 1, 10_000_000),
        help="steps after which the fit ends, and its learning rate has fallen, 1 to 10000000 "
        f"(default {FitOptions.steps} without --minutes, else no limit)",
    )
    parser.add_argument(
        "--minutes",
        type=in_range(float, 0.001, 100_000.0),
        help="minutes after which the fit ends, 0.001 to 100000; the result then depends on the machine (default no "
        "limit)",
    )
    parser.add_argument(
        "--psnr",
        type=in_range(float, 1.0, 200.0),
        help="end as soon as the views are so alike, dB, 1 to 200 (default 58.9: what rounding to 8 bits changes)",
    )
    parser.add_argument(
        "--seed",
        type=in_range(int, 0, 2**63 - 1),
        default=0,
        help="random seed of the weights and of the fit, >= 0 (default %(default)s)",
    )
    add_arguments_of(parser, volume)
    return parser


def main(arguments: Sequence[str]) -> None:
    """Parse, open, fit, write, say how like the views are and what the file takes."""
    options, kind = _parsed(arguments)
    check_output(options.output, (SUFFIX,))
    with AtWork("opening the volume") as work:
        found = _opened(options.run, [path for path in (options.from_volume, options.volume) if path is not None])
        volume = _built(kind, options, found.volume)
        source = Source(found.volume, found.renderer)
        stopped: BaseException | None = None
        begun = _is_of_the_same(volume, found.volume)
        if not begun or unlike(volume, found.volume):
            stopped = _fitted(volume, source, options, begun, work)
        work.tell(0.0, f"comparing {VIEWS} views")
        psnr, worst = psnr_of_views(source, volume, VIEWS, SEED)
        _save(volume, options.output, source, found, psnr)
    _say(options, volume, found, psnr, worst, stopped)
    if stopped is not None:
        raise stopped


def _fitted(
    volume: Volume, source: Source, options: argparse.Namespace, begun: bool, work: AtWork
) -> BaseException | None:
    """Fit the volume, and have the best that was found.

    Returns:
        The signal that ended it early, or None.

    Raises:
        ConfigError: the memory is too small, or the limits left no time to come to anything.
    """
    seconds = None if options.minutes is None else 60.0 * options.minutes
    steps = FitOptions.steps if options.steps is None and seconds is None else options.steps
    given = FitOptions(steps, seconds, options.psnr, options.seed)
    by_blocks = isinstance(volume, SparseGrid)  # takes those with matter first, and then is small
    if not by_blocks:
        check_fit(type(volume), volume.init_args)
    fitting = Fitting(volume, source, given, begun)
    if by_blocks:
        check_fit(type(volume), volume.init_args)
    stopped: BaseException | None = None
    try:
        fitting.run(work.tell)
    except (KeyboardInterrupt, Ended) as signal:
        if not fitting.is_fit:
            raise
        stopped = signal
    if not fitting.is_fit:
        key, limit = ("steps", steps) if seconds is None else ("minutes", options.minutes)
        raise ConfigError(
            f"{key}={limit:g}: after so many the views were no more alike than those of the random start, so nothing "
            f"was written; give more --{key}"
        )
    if fitting.only_tried and stopped is None:
        print(
            f"minutes={options.minutes:g}: the time was over while learning rates were tried, so this is the best of "
            "those few steps; give more --minutes",
            file=sys.stderr,
        )
    fitting.keep_best()
    return stopped


def _parsed(arguments: Sequence[str]) -> tuple[argparse.Namespace, type[Volume]]:
    """The options, with the arguments of the class, and the class.

    Raises:
        ConfigError: no class is named, there is no such one, or its arguments are wrong.
    """
    options, kind = parsed_with_volume(arguments, build_parser)
    if kind is None:
        raise ConfigError(f"volume: must be given: --volume with one of {', '.join(OWN_VOLUMES)}, or package.Class")
    return options, kind


def _opened(given: str | None, trusted: Sequence[str]) -> Given:
    """A run, a volume file or a voxel file.

    Raises:
        UserError: as the readers.
    """
    path, _ = split_pick(given or "")
    if given is not None and not path.is_dir() and any(path.name.lower().endswith(suffix) for suffix in READERS):
        volume = VoxelGrid.load(given)
        origin = {"run": path.name, "step": None}
        return Given(volume.eval().requires_grad_(False), AbsorptionRenderer(), origin, path.stat().st_size)
    path = which_run(given)
    try:
        run = load_sculpture(path, trusted=[import_volume_class(each) for each in trusted])
    except VolumeFileError as error:
        raise VolumeFileError(str(error).replace("name it: --volume ", "name it: --from_volume ")) from None
    return Given(run.volume, run.renderer, run.origin, _size(path / "volume.safetensors" if path.is_dir() else path))


def _built(kind: type[Volume], options: argparse.Namespace, other: Volume) -> Volume:
    check_fit(kind, options.arguments, COPIES_WHILE_TAKEN if kind is type(other) else COPIES_WHILE_BUILT)
    torch.manual_seed(options.seed)
    try:
        return kind(**options.arguments)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ConfigError(f"volume.{' '.join(str(error).split())}") from None


def _is_of_the_same(volume: Volume, other: Volume) -> bool:
    """Whether the weights can be taken as they are; then they are."""
    if type(volume) is not type(other):
        return False
    before = copy.deepcopy(volume)
    try:
        take_weights(before, other)
    except ValueError:
        return False
    take_weights(volume, other)
    volume.eval()
    return True


def _save(volume: Volume, path: Path, source: Source, found: Given, psnr: float) -> None:
    described = {
        "step": found.origin.get("step"),
        "renderer": dataclasses.asdict(source.renderer.options),
        "converted_from": {
            "run": str(found.origin.get("run")),
            "volume": type(found.volume).__name__,
            "psnr": psnr if psnr < math.inf else None,
        },
    }
    volume.save(path, described)


def _say(
    options: argparse.Namespace,
    volume: Volume,
    found: Given,
    psnr: float,
    worst: float,
    stopped: BaseException | None,
) -> None:
    if stopped is not None:
        print("the fit was stopped; this is the best so far", file=sys.stderr)
    if psnr == math.inf:
        print(f"all {VIEWS} views are the same to the bit")
    else:
        print(f"PSNR of {VIEWS} views: {psnr:.2f} dB; of the view that is least alike: {worst:.2f} dB")
    for what, each, size in (("from", found.volume, found.size), ("to", volume, _size(options.output))):
        weights = sum(weight.numel() for weight in each.parameters())
        print(f"{what:4} {type(each).__name__}: {weights:,} weights, {size_in_words(size)} ({size:,} bytes)")
    if options.psnr is not None and psnr < options.psnr and stopped is None:
        more = "--steps" if options.minutes is None else "--minutes"
        print(f"psnr={options.psnr:g}: not reached; give more {more}, or larger arguments", file=sys.stderr)
    own = type(volume) in OWN_VOLUMES.values()
    named = [] if own else ["--volume", options.volume]
    print(f"{printable(str(options.output))}: look at it: {to_type('view', options.output, *named)}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
