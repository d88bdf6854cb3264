"""Find one object from its images: from unknown directions, or with --poses from known ones."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError, RunError
from ..invocation import program_name, to_type
from ..reconstruction.fourier import PADDING
from ..reconstruction.images import INPUT_KINDS, observe
from ..reconstruction.stack_files import MOST_EDGE, STACK_SUFFIXES, read_stack
from ..reconstruction.state_file import STATE_FILE
from ..runs.at_work import AtWork
from ..runs.signals import Ended
from ..storage.memory import check_fits
from ..storage.run_directory import RunDirectory, check_unused
from ..viewer.options import ViewerOptions
from ..volumes import Volume, VoxelGrid
from .reconstruct_files import write_result
from .reconstruct_watch import Watch, page_options
from .reconstruct_ways import BATCH, EM, GAN, built, from_known, from_unknown
from .tool_parser import OneLineParser, add_port_argument, add_seed_argument, in_range
from .volume_arguments import add_arguments_of, parsed_with_volume

BYTES_A_PIXEL = 40  # of all images, while they are worked on
# Of the transform, which is twice as fine as the volume; measured at 64 to 128 voxels along an edge.
BYTES_A_SAMPLE, BYTES_A_SAMPLE_KNOWN = 70, 30


def build_parser(volume: type[Volume] | None = None) -> OneLineParser:
    """All flags.

    Args:
        volume: the class that is named; None: those of all our own are taken too, and none is shown.
    """
    parser = OneLineParser(
        prog=program_name("reconstruct"),
        description=__doc__,
        epilog="For the options of a class, type --volume CLASS_PATH --help.",
    )
    parser.add_argument(
        "stack",
        nargs="?",
        type=Path,
        help=f"the images: {', '.join(STACK_SUFFIXES)}, or a folder of images, all square and of one size",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("reconstruction"),
        help="new folder for all that is found (default %(default)s)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with what was begun in --output, with the same images and options"
    )
    parser.add_argument(
        "--input",
        choices=INPUT_KINDS,
        help="what the values are: transmission (share of the light that passes), absorption (1 - that), line_integral "
        "(-log of it, or any projection); default by the values, which is said",
    )
    parser.add_argument(
        "--invert",
        action="store_true",
        help="matter is negative in the line integrals, as dark particles are: they are multiplied by -1",
    )
    parser.add_argument(
        "--size",
        type=in_range(int, 8, MOST_EDGE),
        help="edge in pixels that the images are brought to, and of the volume in voxels; default theirs, at most 64",
    )
    parser.add_argument(
        "--pixel_size", type=in_range(float, 1e-9, 1e9), help="edge of a pixel of the file; default what the file says"
    )
    parser.add_argument("--unit", help="unit of --pixel_size, which must be given too (default angstrom)")
    parser.add_argument(
        "--max_shift",
        type=in_range(float, 0.0, 1000.0),
        default=0.0,
        help="how far the object may lie off the middle of an image, in pixels, 0 to 1000 (default %(default)s)",
    )
    parser.add_argument(
        "--start",
        default=EM,
        help=f"{EM}: from noise, by expectation maximisation; {GAN}: from noise, taught by a discriminator, which "
        "takes a minute or more; or a volume to begin with, coarse is enough: a run or file (default %(default)s)",
    )
    parser.add_argument(
        "--seeds",
        type=in_range(int, 1, 100),
        default=3,
        help="independent starts from noise, of which the best is refined; their agreement is told, 1 to 100 "
        "(default %(default)s)",
    )
    add_seed_argument(parser, "of the first start, >= 0", 2**62)
    parser.add_argument("--mask", help="volume whose values > 0.5 say where matter may be; default the unit ball")
    parser.add_argument(
        "--poses",
        type=Path,
        help="known directions: .csv as this command writes it, .star, or .npy of shape (images, 3, 3)",
    )
    parser.add_argument(
        "--refine_poses",
        action="store_true",
        help="with --poses: the rotations move too while the volume is fitted, and the shifts if --poses has any",
    )
    parser.add_argument(
        "--volume",
        metavar="CLASS_PATH",
        help="class of the volume that is fitted at the end, HashGrid or package.Class; this imports its code (default "
        "VoxelGrid). Its arguments are flags such as --volume.bake_resolution 64",
    )
    parser.add_argument(
        "--steps",
        type=in_range(int, 1, 10_000_000),
        default=1500,
        help=f"with --poses or --volume: steps of {BATCH} images, >= 1 (default %(default)s)",
    )
    parser.add_argument(
        "--viewer.enabled",
        choices=["true", "false"],
        default="true",
        help="whether to serve a page that shows the volume meanwhile (default %(default)s)",
    )
    add_port_argument(parser, "--viewer.port", ViewerOptions().port)
    add_arguments_of(parser, volume)
    return parser


def main(arguments: Sequence[str]) -> None:
    """Parse, read, find, write, say what was found."""
    options, kind = parsed_with_volume(arguments, build_parser)
    if options.stack is None:
        raise DataError(f"stack: must be given: a file ({', '.join(STACK_SUFFIXES)}) or a folder of images")
    _check_together(options)
    if options.resume:
        _check_begun(options.output)
    else:
        _check_new(options.output)
    began = time.perf_counter()
    with AtWork("reading the images") as work:
        stack = read_stack(options.stack)
        edge = stack.values.shape[-1]
        observed = observe(
            options.stack,
            stack,
            kind=options.input,
            size=options.size,
            pixel_size=options.pixel_size,
            unit=options.unit,
            invert=options.invert,
        )
        lines = observed.lines
        count, size = len(lines), lines.shape[-1]
        samples = (PADDING * size) ** 3 * (BYTES_A_SAMPLE if options.poses is None else BYTES_A_SAMPLE_KNOWN)
        what = f"size={size}: {count:,} images and the volume take"
        check_fits(BYTES_A_PIXEL * lines.numel() + samples, what, "lower --size", DataError)
        del stack
        print(f"{count:,} images of {edge}x{edge} pixels, {observed.said}", flush=True)
        if count < 2 and options.poses is None:
            raise DataError(
                f"stack={options.stack}: holds one image; must hold two or more, and some hundred to find directions "
                "well; or give --poses"
            )
        if size != edge:
            print(
                f"brought to {size}x{size} pixels of {observed.pixel_size:.4g} {observed.unit}; --size {edge} keeps all"
            )
        for hint in observed.hints:
            print(f"WARNING: {hint}", flush=True)
        given = {key: options.arguments[key] for key in (flag.removeprefix("volume.") for flag, _ in options.given)}
        kind = VoxelGrid if kind is None and options.poses is not None else kind
        volume = None if kind is None else built(kind, size, given, options.seed)
        run = RunDirectory(options.output)
        run.take(make=True)
        watch = Watch(work, page_options(options), options.output, size)
        try:
            if options.poses is not None and volume is not None:
                result = from_known(options, observed, edge, watch, volume)
            else:
                result = from_unknown(options, observed, edge, watch, run, volume)
            work.tell(1.0, "writing")
            result.warnings.extend(observed.hints)
            result.report["seconds"] = round(time.perf_counter() - began, 1)
            written = write_result(run, result, options.stack, edge)
            watch.end(result.attenuation)
        except (KeyboardInterrupt, Ended):
            if (run.path / STATE_FILE).exists():
                print(f"{run.path}: keeps what is done; the same command with --resume goes on", file=sys.stderr)
            raise
        finally:
            watch.close()
            run.release()
    for line in (*result.lines, *(f"WARNING: {each}" for each in result.warnings), *written):
        print(line)
    print(f"turn it: {to_type('view', options.output / 'volume.safetensors')}")


def _check_together(options: Any) -> None:
    """Flags that need or exclude each other.

    Raises:
        DataError: with the pair.
    """
    if options.unit is not None and options.pixel_size is None:
        raise DataError(f"unit={options.unit}: needs --pixel_size, as it is the unit of that; a file says its own")
    if options.poses is None and options.refine_poses:
        raise DataError("refine_poses: needs --poses; directions that are searched for are refined anyway")
    if options.volume is None and options.given:
        raise DataError(f"{options.given[0][0]}: needs --volume, the class whose argument it is")
    if options.poses is None:
        return
    if options.resume:
        raise DataError("resume: not with --poses, which begins anew each time")
    unused = {"start": options.start != EM, "mask": options.mask is not None, "max_shift": options.max_shift > 0.0}
    if wrong := next((name for name, given in unused.items() if given), None):
        raise DataError(f"{wrong}: not with --poses, which says where each image was taken from; leave one of them out")


def _check_begun(folder: Path) -> None:
    """Fail where going on would begin anew over something else; in an empty folder nothing is lost.

    Raises:
        DataError: it holds something, or is a file, and there is no state in it.
    """
    if (folder / STATE_FILE).exists():
        return
    try:
        check_unused(folder)
    except RunError:
        raise DataError(
            f"output={folder}: holds no {STATE_FILE}, so there is nothing to go on with, and a new reconstruction "
            "would replace what lies there; give a new folder"
        ) from None


def _check_new(folder: Path) -> None:
    try:
        check_unused(folder)
    except RunError:
        raise DataError(
            f"output={folder}: must be a new or empty folder; with --resume what was begun there goes on"
        ) from None
