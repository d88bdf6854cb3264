"""The files of a reconstruction, each whole or not there at all."""

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ExportError
from ..invocation import program_name
from ..reconstruction.fourier import soft_ball
from ..reconstruction.fsc import HALF, HALF_MAPS, crossing
from ..reconstruction.images import Observed, moved_back
from ..reconstruction.pose_search import Poses
from ..reconstruction.poses import csv_text, star_text, star_word
from ..reconstruction.projection import line_integrals
from ..reconstruction.report import EXAMPLES, Drawn, figure_bytes, map_bytes, report_text, shown_factor
from ..storage.optional import to_install
from ..storage.run_directory import RunDirectory
from ..volumes.base import Volume, volume_bytes
from ..volumes.voxel_grid import VoxelGrid
from .fsc import curve_text, resolution_words

STAR_STACK = ".mrcs"  # RELION takes no other file for a stack, not even .mrc


@dataclass
class Result:
    """All that is written.

    Args:
        observed: the images.
        volume: as it is saved; its attenuation is that per world unit times `factor`.
        factor: by which it was scaled.
        attenuation: the grid, per world unit.
        poses: of all images.
        mask: where matter was allowed; None: in the ball.
        report: so far.
        lines: for the terminal.
        warnings: likewise.
        halves: maps of half of the images each; None: not made.
        curve: their FSC.
        agreement: of the starts.
    """

    observed: Observed
    volume: Volume
    factor: float
    attenuation: Float[Tensor, "N N N"]
    poses: Poses
    mask: Float[Tensor, "N N N"] | None
    report: dict[str, Any]
    lines: list[str]
    warnings: list[str]
    halves: Float[Tensor, "2 N N N"] | None = None
    curve: Float[Tensor, " S"] | None = None
    agreement: list[float] = field(default_factory=list)


def write_result(run: RunDirectory, result: Result, stack: Path, edge: int) -> list[str]:
    """Write all files.

    Args:
        run: the folder.
        result: what is written; its poses' shifts are in pixels of the volume's size.
        stack: the images, as they were given.
        edge: pixels of the images in their file, in which shifts are written.

    Returns:
        Lines about the files.
    """
    observed, size = result.observed, len(result.attenuation)
    pixel, unit = observed.pixel_size, observed.unit
    said: list[str] = []
    maps = {"volume": result.attenuation, "mask": soft_ball(size) if result.mask is None else result.mask}
    if result.halves is not None:
        maps |= {"half1": result.halves[0], "half2": result.halves[1]}
    label = "written by mnist3d" if unit == "angstrom" else f"mnist3d; 1 angstrom stands for 1 {unit[:40]}"
    try:
        with tempfile.TemporaryDirectory() as folder:
            for name, values in maps.items():
                # a mask is no attenuation: its values stay
                scale = 2.0 / (size * pixel) if name == "mask" else 1.0
                run.write(f"{name}.mrc", map_bytes(values / scale, pixel, Path(folder), label))
    except ExportError as error:
        said.append(f"no .mrc files: {error}")
    saved, factor = result.volume, result.factor
    # A volume of another kind cannot be scaled, and stays what it is.
    if factor == 1.0 and type(saved) is VoxelGrid and (factor := shown_factor(result.attenuation)) != 1.0:
        saved = VoxelGrid.from_array(result.attenuation * factor)
    run.write("volume.safetensors", volume_bytes(saved, {"renderer": {"image_size": size}}))
    poses = replace(result.poses, shifts=result.poses.shifts * edge / size)
    run.write("poses.csv", csv_text(poses))
    run.write("poses.star", star_text(poses, _star_stack(stack), edge, pixel * size / edge))
    said += _star_words(stack, observed.kind)
    if result.curve is not None:
        run.write("fsc.csv", curve_text(result.curve.tolist(), size, pixel))
        for threshold in (HALF, HALF_MAPS):
            words = resolution_words(crossing(result.curve, threshold), size, pixel, unit)
            result.lines.append(f"half-maps' FSC {threshold:g}: {words}")
            result.report[f"half_maps_fsc_{threshold:g}_shell"] = crossing(result.curve, threshold)
    if factor != 1.0:
        said.append(f"volume.safetensors holds the attenuation times {factor:.4g}, so that its views can be seen")
    report = {**result.report, "pixel_size": pixel, "unit": unit, "factor_of_volume_file": factor}
    run.write("report.json", report_text({**report, "warnings": result.warnings, "input": observed.said}))
    figures = figure_bytes(_drawn(result))
    if figures is None:
        said.append(f"no figures: they need matplotlib: {to_install('export')}")
    else:
        run.write("report.png", figures)
    files = "volume.mrc, volume.safetensors, poses.star, poses.csv, report.json and more"
    return [*said, f"{run.path}: {files}; {program_name('fsc')} compares volumes"]


def _star_stack(stack: Path) -> str:
    """The stack that a .star file names: the images as they were given, or where they must be written for RELION."""
    unnamed = stack.name in ("", "..")  # the folder itself, or the one above
    return (Path(f"stack{STAR_STACK}") if unnamed else stack.with_suffix(STAR_STACK)).as_posix()


def _star_words(stack: Path, kind_of_images: str) -> list[str]:
    """What is left to do before RELION finds the images and can use them; nothing where it can."""
    named = star_word(_star_stack(stack))
    if stack.suffix != STAR_STACK:
        kind = "folder" if stack.is_dir() else f"{stack.suffix} file"
        return [
            f"poses.star names {named}, as RELION takes no {kind} for a stack: write the images of {stack} there as "
            "line integrals, in the same order"
        ]
    if kind_of_images != "line_integral":
        return [
            f"poses.star names {named}, whose images RELION cannot use, as each value is a {kind_of_images} and not a "
            "line integral: write them as line integrals, in the same order, and give RELION that stack"
        ]
    if named != stack.as_posix():
        return [f"poses.star names {named}, as a name in it holds no spaces: give the stack that name for RELION"]
    return []


def _drawn(result: Result) -> Drawn:
    count = len(result.poses.rotations)
    some = torch.linspace(0, count - 1, min(EXAMPLES, count)).long()
    images = moved_back(result.observed.lines[some], result.poses.shifts[some])
    views = line_integrals(result.attenuation.clamp_min(0.0), result.poses.rotations[some], images.shape[-1])
    return Drawn(
        result.attenuation,
        result.curve,
        result.poses,
        images,
        views,
        result.observed.pixel_size,
        result.observed.unit,
        result.agreement,
    )
