"""Find one object from its images: from unknown directions, or with --poses from known ones."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from ..errors import DataError, RunError
from ..invocation import program_name, to_type
from ..reconstruction.fourier import resized, soft_ball
from ..reconstruction.images import INPUT_KINDS, Observed, moved_back, observe
from ..reconstruction.known_views import fit_known
from ..reconstruction.pose_search import Poses
from ..reconstruction.poses import read_poses
from ..reconstruction.projection import line_integrals
from ..reconstruction.stack_files import MOST_EDGE, STACK_SUFFIXES, read_stack
from ..reconstruction.state_file import STATE_FILE, fingerprint, read_state, state_bytes
from ..reconstruction.unknown_views import find_object
from ..runs.at_work import AtWork
from ..runs.class_paths import import_volume_class
from ..runs.signals import Ended
from ..storage.memory import check_fits
from ..storage.run_directory import RunDirectory, check_unused
from ..volumes.base import Volume
from ..volumes.voxel_grid import VoxelGrid
from .any_volume import any_volume
from .reconstruct_files import Result, write_result
from .tool_parser import OneLineParser, in_range

START = "em"
BYTES_A_PIXEL = 40  # of all images, while they are worked on
KNOWN_BATCH = 16  # images a step


def build_parser() -> OneLineParser:
    """All flags."""
    parser = OneLineParser(prog=program_name("reconstruct"), description=__doc__)
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
        "--size",
        type=in_range(int, 8, MOST_EDGE),
        help="edge in pixels that the images are brought to, and of the volume in voxels; default theirs, at most 64",
    )
    parser.add_argument(
        "--pixel_size", type=in_range(float, 1e-9, 1e9), help="edge of a pixel of the file; default what the file says"
    )
    parser.add_argument("--unit", help="unit of --pixel_size (default angstrom)")
    parser.add_argument(
        "--max_shift",
        type=in_range(float, 0.0, 1000.0),
        default=0.0,
        help="how far the object may lie off the middle of an image, in pixels, 0 to 1000 (default %(default)s)",
    )
    parser.add_argument(
        "--start",
        default=START,
        help=f"{START}: from noise; or a volume to begin with, coarse is enough: a run or file (default %(default)s)",
    )
    parser.add_argument(
        "--seeds",
        type=in_range(int, 1, 100),
        default=3,
        help="independent starts from noise, of which the best is refined; their agreement is told, 1 to 100 "
        "(default %(default)s)",
    )
    parser.add_argument(
        "--seed", type=in_range(int, 0, 2**62), default=0, help="of the first start, >= 0 (default %(default)s)"
    )
    parser.add_argument("--mask", help="volume whose values > 0.5 say where matter may be; default the unit ball")
    parser.add_argument(
        "--poses",
        type=Path,
        help="known directions: .csv as this command writes it, .star, or .npy of shape (images, 3, 3)",
    )
    parser.add_argument(
        "--refine_poses", action="store_true", help="with --poses: the rotations move too, while the volume is fitted"
    )
    parser.add_argument(
        "--volume",
        metavar="CLASS_PATH",
        help="with --poses: class of the volume, HashGrid or package.Class; this imports its code (default VoxelGrid)",
    )
    parser.add_argument(
        "--steps",
        type=in_range(int, 1, 10_000_000),
        default=1500,
        help=f"with --poses: steps of {KNOWN_BATCH} images, >= 1 (default %(default)s)",
    )
    return parser


def main(arguments: Sequence[str]) -> None:
    """Parse, read, find, write, say what was found."""
    options = build_parser().parse_args(arguments)
    if options.stack is None:
        raise DataError(f"stack: must be given: a file ({', '.join(STACK_SUFFIXES)}) or a folder of images")
    _check_together(options)
    if not options.resume:
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
        )
        lines = observed.lines
        count, size = len(lines), lines.shape[-1]
        check_fits(BYTES_A_PIXEL * lines.numel(), f"size={size}: {count:,} images take", "lower --size", DataError)
        del stack
        print(f"{count:,} images of {edge}x{edge} pixels, {observed.said}", flush=True)
        if size != edge:
            print(
                f"brought to {size}x{size} pixels of {observed.pixel_size:.4g} {observed.unit}; --size {edge} keeps all"
            )
        run = RunDirectory(options.output)
        options.output.mkdir(parents=True, exist_ok=True)
        run.take()
        try:
            if options.poses is not None:
                result = _from_known(options, observed, edge, work)
            else:
                result = _from_unknown(options, observed, edge, work, run)
            work.tell(1.0, "writing")
            result.report["seconds"] = round(time.perf_counter() - began, 1)
            written = write_result(run, result)
        except (KeyboardInterrupt, Ended):
            if (run.path / STATE_FILE).exists():
                print(f"{run.path}: keeps what is done; the same command with --resume goes on", file=sys.stderr)
            raise
        finally:
            run.release()
    for line in (*result.lines, *(f"WARNING: {each}" for each in result.warnings), *written):
        print(line)
    print(f"turn it: {to_type('view', options.output / 'volume.safetensors')}")


def _check_together(options: Any) -> None:
    """Flags that need or exclude each other.

    Raises:
        DataError: with the pair.
    """
    if options.poses is None:
        for name, value in (("refine_poses", options.refine_poses), ("volume", options.volume)):
            if value:
                raise DataError(f"{name}: needs --poses; from unknown directions the volume is a VoxelGrid")
    elif options.resume:
        raise DataError("resume: not with --poses, which begins anew each time")
    if options.start == "gan":
        raise DataError(
            f"start=gan: not yet; must be {START} or a volume, such as a run of mnist3d train on these images"
        )


def _check_new(folder: Path) -> None:
    try:
        check_unused(folder)
    except RunError:
        raise DataError(
            f"output={folder}: must be a new or empty folder; with --resume what was begun there goes on"
        ) from None


def _from_unknown(options: Any, observed: Observed, edge: int, work: AtWork, run: RunDirectory) -> Result:
    size = observed.lines.shape[-1]
    start = None if options.start == START else resized(any_volume(options.start), size, 3)
    mask = None if options.mask is None else _mask(options.mask, size)
    told = {name: getattr(options, name) for name in ("seeds", "seed", "max_shift", "start", "mask")}
    told |= {"kind": observed.kind, "size": size}
    mark = fingerprint(told, observed.lines)
    stages = read_state(run.path / STATE_FILE, mark, len(observed.lines), size) if options.resume else None
    found = find_object(
        observed,
        seeds=options.seeds,
        seed=options.seed,
        max_shift=options.max_shift * size / edge,
        start=start,
        mask=mask,
        stages=stages,
        tell=lambda share, doing: work.tell(share, doing),
        save=lambda stages: run.write(STATE_FILE, state_bytes(stages, mark)) and None,
    )
    report = {
        **told,
        "images": len(observed.lines),
        "directions": "unknown",
        "unexplained": found.refined.unexplained,
        "noise_share": found.noise_share,
        "agreement_of_starts": found.agreement,
        "unexplained_by_starts": found.left,
        "hand": "not determined: line integrals of an object and of its mirror image are the same",
    }
    lines = [
        f"unexplained: {found.refined.unexplained:.1%} of the images' power, of which noise {found.noise_share:.1%}"
    ]
    if found.agreement:
        lines.append(f"other starts agree with it by a correlation of {', '.join(f'{a:.3f}' for a in found.agreement)}")
    lines.append("its hand is not determined: the mirror image explains the images as well")
    return Result(
        observed,
        VoxelGrid.from_array(found.volume),
        1.0,
        found.volume,
        found.refined.poses,
        mask,
        report,
        lines,
        found.warnings,
        found.refined.halves,
        found.refined.curve,
        found.agreement,
    )


def _from_known(options: Any, observed: Observed, edge: int, work: AtWork) -> Result:
    size, count = observed.lines.shape[-1], len(observed.lines)
    poses = read_poses(options.poses, count, edge, observed.pixel_size * size / edge)
    shifts = poses.shifts * size / edge
    lines = moved_back(observed.lines, shifts) if bool(shifts.any()) else observed.lines
    torch.manual_seed(options.seed)  # the initial weights of any backend
    volume = VoxelGrid(size) if options.volume is None else _built(import_volume_class(options.volume))
    fitted = fit_known(
        volume,
        lines,
        poses.rotations,
        arbitrary=observed.kind == "line_integral",
        steps=options.steps,
        batch=KNOWN_BATCH,
        generator=Generator().manual_seed(options.seed),
        refine_poses=options.refine_poses,
        tell=lambda share: work.tell(share, "fitting the volume"),
    )
    dense = volume.dense()
    grid = dense[0].detach() if dense is not None else VoxelGrid.from_field(volume, size).dense()[0].detach()
    attenuation = resized(grid, size, 3) / fitted.factor
    left = [
        (line_integrals(attenuation.clamp_min(0.0), rotations, size) - given).square().sum((1, 2))
        / given.square().sum((1, 2)).clamp_min(1e-12)
        for rotations, given in zip(fitted.rotations.split(100), lines.split(100), strict=True)
    ]
    found = Poses(fitted.rotations, shifts, torch.cat(left))
    report = {
        "images": count,
        "directions": "known, refined" if options.refine_poses else "known",
        "volume": type(volume).__name__,
        "steps": options.steps,
        "psnr_of_held_out_views": fitted.psnr,
        "kind": observed.kind,
        "size": size,
    }
    said = [f"held-out views: PSNR {fitted.psnr:.2f} dB (one image of ten is never learned from)"]
    return Result(observed, volume, fitted.factor, attenuation, found, None, report, said, [])


def _built(kind: type[Volume]) -> Volume:
    try:
        return kind()
    except (TypeError, ValueError) as error:
        raise DataError(f"volume={kind.__name__}: cannot be built with its default arguments ({error})") from None


def _mask(given: str, size: int) -> Tensor:
    mask = (resized(any_volume(given), size, 3) > 0.5).float() * soft_ball(size)
    if not bool(mask.any()):
        raise DataError(f"mask={given}: no value is > 0.5, so nothing may be anywhere; scale it")
    return mask
