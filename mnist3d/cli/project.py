"""Write images of a volume as a detector would take them, from random directions, with noise; and their true poses."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch

from ..errors import DataError, ExportError
from ..geometry.rotations import PoseName, PoseOptions
from ..invocation import program_name
from ..reconstruction.poses import csv_text, star_text
from ..reconstruction.simulation import simulate
from ..reconstruction.stack_files import MOST_EDGE, MOST_IMAGES, write_mrcs
from ..runs.at_work import AtWork
from ..storage.atomic import check_output, describe_file, whole_files
from ..storage.memory import check_fits
from .any_volume import any_volume
from .tool_parser import OneLineParser, add_seed_argument, in_range

POSES = (".star", ".csv")  # suffixes of the true poses, beside the stack
STACK_FORMATS = {".mrcs": "RELION, cryoSPARC, IMOD, mnist3d reconstruct"}


def build_parser() -> OneLineParser:
    """All flags."""
    parser = OneLineParser(prog=program_name("project"), description=__doc__)
    add_volume_argument(parser, "volume")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("stack.mrcs"),
        help="stack of images to write, .mrcs; the true poses are written beside it as .star and .csv, which must be "
        "new (default %(default)s)",
    )
    parser.add_argument(
        "--views",
        type=in_range(int, 1, MOST_IMAGES),
        default=4000,
        help=f"number of images, 1 to {MOST_IMAGES} (default %(default)s)",
    )
    parser.add_argument(
        "--size",
        type=in_range(int, 8, MOST_EDGE),
        help=f"edge of an image in pixels, 8 to {MOST_EDGE}; default the voxels along the volume's edge",
    )
    parser.add_argument(
        "--snr",
        type=in_range(float, 1e-4, 1e6),
        help="signal-to-noise ratio: variance of the images inside the unit disc by that of the noise, 1e-4 to 1e6; "
        "default no noise",
    )
    parser.add_argument(
        "--max_shift",
        type=in_range(float, 0.0, 100.0),
        default=0.0,
        help="each image is moved by up to so many pixels along each axis, 0 to 100 (default %(default)s)",
    )
    parser.add_argument(
        "--poses", choices=get_args(PoseName), default="so3", help="directions of the views (default %(default)s)"
    )
    parser.add_argument(
        "--pixel_size",
        type=in_range(float, 1e-6, 1e9),
        default=1.0,
        help="edge of a pixel in angstrom, which the files say, 1e-6 to 1e9 (default %(default)s)",
    )
    add_seed_argument(parser, "random seed, >= 0")
    return parser


def add_volume_argument(parser: argparse.ArgumentParser, name: str) -> None:
    """A volume of any kind, for `any_volume`; whether it was given is said by `given`."""
    help_ = "run directory, volume.safetensors, or a voxel file of another tool such as map.mrc"
    parser.add_argument(name, nargs="?", help=help_)


def given(options: argparse.Namespace, *names: str) -> None:
    """Fail where a volume was not given.

    Raises:
        DataError: with the first that is missing.
    """
    for name in names:
        if getattr(options, name) is None:
            raise DataError(f"{name}: must be given: a run directory, a volume.safetensors or a voxel file")


def _check_poses(stack: Path) -> None:
    """Fail where the true poses would replace a file, which may hold somebody's refined ones.

    Raises:
        ExportError: with its name.
    """
    for suffix in POSES:
        if os.path.lexists(beside := stack.with_suffix(suffix)):
            raise ExportError(
                f"output={stack}: the true poses would replace {beside}, which may hold others; move or remove it, or "
                "give another name"
            )


def main(arguments: Sequence[str]) -> None:
    """Parse, render, write, say what lies where."""
    options = build_parser().parse_args(arguments)
    given(options, "volume")
    check_output(options.output, STACK_FORMATS)
    _check_poses(options.output)
    with AtWork("opening the volume") as work:
        grid = any_volume(options.volume)
        if float(grid.min()) < 0.0:
            raise DataError(
                f"{options.volume}: holds values < 0; add #negative=clip to its name, which makes them empty"
            )
        size = options.size or len(grid)
        needed = 3 * 4 * options.views * size**2
        check_fits(needed, f"views={options.views}: images of {size} pixels take", "lower --views or --size", DataError)
        made = simulate(
            grid,
            views=options.views,
            size=size,
            generator=torch.Generator().manual_seed(options.seed),
            poses=PoseOptions(options.poses),
            signal_to_noise=options.snr,
            max_shift=options.max_shift,
            tell=lambda share: work.tell(share, "rendering"),
        )
        with whole_files(options.output) as folder:
            write_mrcs(folder / options.output.name, made.lines.numpy(), options.pixel_size)
            beside = options.output.with_suffix("").name
            star = star_text(made.poses, options.output.name, size, options.pixel_size)
            (folder / f"{beside}.star").write_text(star, encoding="utf-8")
            (folder / f"{beside}.csv").write_text(csv_text(made.poses), encoding="utf-8")
    print(f"{options.views:,} line integrals of {size}x{size} pixels, noise {made.noise:.3g}")
    print(f"true poses: {options.output.with_suffix('.star')}, {options.output.with_suffix('.csv')}")
    print(describe_file(options.output, STACK_FORMATS[".mrcs"]))
