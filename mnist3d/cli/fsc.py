"""Compare two volumes shell by shell in Fourier space: how fine a detail do they agree on?"""

import argparse
import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..errors import DataError, ExportError
from ..formats.picking import split_pick
from ..invocation import program_name
from ..reconstruction.alignment import align
from ..reconstruction.fourier import resized
from ..reconstruction.fsc import HALF, HALF_MAPS, correlation, crossing, shell_correlation
from ..reconstruction.poses import UPRIGHT
from ..reconstruction.so3 import zyz_of
from ..reconstruction.voxel_edges import SAME_EDGE, voxel_edge
from ..runs.at_work import AtWork
from ..storage.atomic import check_output, describe_file, write_atomically
from .any_volume import any_volume
from .project import add_volume_argument, given
from .tool_parser import OneLineParser, in_range

SAME_WIDTH = 0.01  # relative: one that lost part of a voxel


def build_parser() -> OneLineParser:
    """All flags."""
    parser = OneLineParser(prog=program_name("fsc"), description=__doc__)
    add_volume_argument(parser, "first")
    add_volume_argument(parser, "second")
    parser.add_argument(
        "--align", action="store_true", help="first lay the first volume on the second: turn and shift it"
    )
    parser.add_argument(
        "--mirror",
        action="store_true",
        help="with --align: its mirror image too, if that fits better; line integrals cannot tell them apart",
    )
    parser.add_argument(
        "--pixel_size",
        type=in_range(float, 1e-6, 1e9),
        help="edge of a voxel of the second volume, in a unit of yours, in which the resolution is said too; default "
        "what a .mrc says; when given, files of different widths are taken as equally wide",
    )
    parser.add_argument("--output", type=Path, help="write the curve as .csv: shell, frequency, FSC")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Parse, compare, say where the two no longer agree."""
    options = build_parser().parse_args(arguments)
    given(options, "first", "second")
    if options.mirror and not options.align:
        raise ExportError("mirror: needs --align, which tries the mirror image")
    if options.output is not None:
        check_output(options.output, (".csv",))
    with AtWork("opening the volumes") as work:
        first, second = any_volume(options.first), any_volume(options.second)
        told, padded = tuple(voxel_edge(split_pick(name)[0]) for name in (options.first, options.second)), ""
        if told[0] is not None and told[1] is not None and told[0][1] == told[1][1]:
            first, second, padded = _equally_wide(options, first, second, told[0][0], *told[1])
        edge, size = len(second), min(len(first), len(second))
        first, second = resized(first, size, 3), resized(second, size, 3)
        found = None
        if options.align:
            work.tell(0.0, "aligning")
            found = align(first, second, mirror=options.mirror)
            first = found.apply(first)
        curve = shell_correlation(first, second)
    if padded:
        print(padded)
    if found is not None:
        # About a file's axes (x right, y away, z up), as other programs and poses.star have them, not the world's.
        turn = UPRIGHT @ found.rotation.double() @ UPRIGHT.T
        rot, tilt, psi = (math.degrees(angle) for angle in zyz_of(turn[None])[0].tolist())
        shift = ", ".join(f"{value * size / 2.0:.2f}" for value in (UPRIGHT @ found.shift.double()).tolist())
        hand = ", mirrored" if found.mirrored else ""
        print(
            f"aligned: rot {rot:.1f}, tilt {tilt:.1f}, psi {psi:.1f} degrees, shift {shift} voxels{hand}, about x "
            "right, y away, z up"
        )
    print(f"correlation {correlation(first, second):.4f}")
    pixel, unit = (options.pixel_size, "") if options.pixel_size is not None or told[1] is None else told[1]
    pixel = None if pixel is None else pixel * edge / size
    for threshold in (HALF, HALF_MAPS):
        print(f"FSC {threshold:g}: {resolution_words(crossing(curve, threshold), size, pixel, unit)}")
    if options.output is not None:
        write_atomically(options.output, curve_text(curve.tolist(), size, pixel).encode())
        print(describe_file(options.output, "any table"))


def _equally_wide(
    options: argparse.Namespace,
    first: Float[Tensor, "N N N"],
    second: Float[Tensor, "M M M"],
    edge: float,
    other: float,
    unit: str,
) -> tuple[Float[Tensor, "P P P"], Float[Tensor, "Q Q Q"], str]:
    """Both with boxes of one width: with voxels of one size the smaller is padded with nothing.

    Args:
        options: of the command line.
        first: a cube.
        second: likewise.
        edge: of the first one's voxels.
        other: of the second one's.
        unit: of both.

    Returns:
        The cubes, and a line about what was done, empty for nothing.

    Raises:
        DataError: the widths differ, and padding does not help.
    """
    more = len(second) - len(first)
    if more != 0 and more % 2 == 0 and abs(edge / other - 1.0) < SAME_EDGE:  # an odd number would move the middle
        sides = [abs(more) // 2] * 6
        if more > 0:
            words = f"{options.first}: padded from {len(first)} to {len(second)} voxels, as its voxels are as large"
            return F.pad(first, sides), second, words
        words = f"{options.second}: padded from {len(second)} to {len(first)} voxels, as its voxels are as large"
        return first, F.pad(second, sides), words
    widths = edge * len(first), other * len(second)
    if abs(widths[0] / widths[1] - 1.0) > SAME_WIDTH and options.pixel_size is None:
        raise DataError(
            f"{options.first}: is {widths[0]:.4g} {unit} wide, {options.second} {widths[1]:.4g}, by their headers; "
            "must be as wide: pad or crop one in the tool that made it, or, if a header is wrong, give --pixel_size, "
            "which takes them as equally wide"
        )
    return first, second, ""


def resolution_words(shell: float, size: int, pixel_size: float | None = None, unit: str = "") -> str:
    """A shell in words: its share of Nyquist's, and the length of its period in voxels and in a unit."""
    if shell == 0.0:
        return "below it from the first shell on"
    length = "" if pixel_size is None else f" = {size / shell * pixel_size:.3g} {unit}".rstrip()
    return f"shell {shell:.1f} of {size // 2}, {2.0 * shell / size:.0%} of Nyquist, {size / shell:.2f} voxels{length}"


def curve_text(curve: Sequence[float], size: int, pixel_size: float | None) -> str:
    """The curve as .csv; frequencies in cycles per voxel, or per unit where a voxel's edge is known."""
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["shell", "cycles_per_voxel" if pixel_size is None else "cycles_per_unit", "fsc"])
    for shell, value in enumerate(curve, start=1):
        table.writerow([shell, f"{shell / size / (pixel_size or 1.0):.6g}", f"{value:.6f}"])
    return file.getvalue()
