"""Compare two volumes shell by shell in Fourier space: how fine a detail do they agree on?"""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from ..errors import ExportError
from ..invocation import program_name
from ..reconstruction.alignment import align
from ..reconstruction.fourier import resized
from ..reconstruction.fsc import HALF, HALF_MAPS, correlation, crossing, shell_correlation
from ..reconstruction.so3 import zyz_of
from ..runs.at_work import AtWork
from ..storage.atomic import check_output, describe_file, write_atomically
from .any_volume import any_volume
from .project import add_volume_argument, given
from .tool_parser import OneLineParser, in_range


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
        help="edge of a voxel of the second volume, in a unit of yours; the resolution is then said in it too",
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
        edge, size = len(second), min(len(first), len(second))
        first, second = resized(first, size, 3), resized(second, size, 3)
        found = None
        if options.align:
            work.tell(0.0, "aligning")
            found = align(first, second, mirror=options.mirror)
            first = found.apply(first)
        curve = shell_correlation(first, second)
    if found is not None:
        rot, tilt, psi = (math.degrees(angle) for angle in zyz_of(found.rotation[None])[0].tolist())
        shift = ", ".join(f"{value * size / 2.0:.2f}" for value in found.shift.tolist())
        hand = ", mirrored" if found.mirrored else ""
        print(f"aligned: rot {rot:.1f}, tilt {tilt:.1f}, psi {psi:.1f} degrees, shift {shift} voxels{hand}")
    print(f"correlation {correlation(first, second):.4f}")
    pixel = None if options.pixel_size is None else options.pixel_size * edge / size
    for threshold in (HALF, HALF_MAPS):
        print(f"FSC {threshold:g}: {resolution_words(crossing(curve, threshold), size, pixel)}")
    if options.output is not None:
        write_atomically(options.output, curve_text(curve.tolist(), size, pixel).encode())
        print(describe_file(options.output, "any table"))


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
