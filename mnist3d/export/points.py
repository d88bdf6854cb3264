"""Clouds of points, for laser engraving in glass and for point viewers: ply, xyz, dxf.

The points follow the light that the volume gives back to all sides; `light` measures it, `blue_noise` places them.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ..errors import ExportError
from ..storage import check_output, require, whole_files, write_description
from ..volumes.base import Field
from .blue_noise import blue_noise
from .light import emitted_light, likeness
from .sampling import as_array
from .shares import Tell, part, silent

POINT_FORMATS: dict[str, str] = {
    ".ply": "MeshLab, CloudCompare, Blender, most engraving software",
    ".xyz": "CloudCompare, MeshLab, text editors",
    ".dxf": "laser engraving and CAD software",
}
COUNT, MAX_COUNT = 50_000, 1_000_000
MIN_DISTANCE_MM = 0.1  # about a laser's mark in glass: nearer ones would grow together
SIZE_MM = 60.0
BYTES_OF_A_VOXEL = 16  # besides the voxels: their copy while they are rendered
PLY_POINT = np.dtype([("place", "<f4", 3), ("brightness", "<f4"), ("colour", "u1", 3)])
PLY_HEADER = """ply
format binary_little_endian 1.0
comment mm; x right, y away from the viewer, z up
element vertex {count}
property float x
property float y
property float z
property float brightness
property uchar red
property uchar green
property uchar blue
end_header
"""
POINTS_AT_ONCE = 2**16


@dataclass
class PointReport:
    """Figures about a cloud of points.

    Args:
        count: points in the file.
        wanted: points that were asked for.
        least_mm: the smallest distance between two of them.
        usual_mm: median of the distances to the nearest other one.
        bounding_box_mm: along x (right), y (away from the viewer), z (up).
        psnr: of views of the points against views of the volume from ten sides, decibels.
    """

    count: int
    wanted: int
    least_mm: float
    usual_mm: float
    bounding_box_mm: tuple[float, float, float]
    psnr: float

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """For people: a line a figure, with what to do where it is bad."""
        x, y, z = self.bounding_box_mm
        points = f"{self.count:,}"
        if self.count < self.wanted:
            points += f" of {self.wanted:,}, no more fit: a smaller --min_distance_mm, or a larger --size_mm"
        return [
            f"points          {points}",
            f"distance        {self.least_mm:.3g} mm or more, to the nearest usually {self.usual_mm:.3g} mm",
            f"bounding box    {x:.1f} x {y:.1f} x {z:.1f} mm (right, away, up)",
            f"looks like the views to {self.psnr:.1f} dB (PSNR from ten sides; points hide nothing)",
        ]


def export_points(
    volume: Field | ArrayLike,
    path: str | Path,
    *,
    count: int = COUNT,
    min_distance_mm: float = MIN_DISTANCE_MM,
    size_mm: float = SIZE_MM,
    seed: int = 0,
    description: dict[str, Any] | None = None,
    tell: Tell = silent,
) -> PointReport:
    """Write a cloud of points whose density is the light that a volume gives back, and `PATH.json` beside it.

    Args:
        volume: any backend, or an array (2, Z, Y, X) in the world's axes.
        path: its suffix is one of `POINT_FORMATS`.
        count: points that are wanted, 2 to 1,000,000; fewer are written where no more fit.
        min_distance_mm: no two points are nearer to each other, 0 to 1000 mm.
        size_mm: the unit ball's diameter, which holds all points, 0.1 to 10000 mm.
        seed: of the random numbers, 0 to 2^63 - 1; the same seed gives the same points.
        description: where the volume comes from; it goes into the .json.
        tell: is handed the share that is done and what is done now, for a bar.

    Returns:
        What can be said of the cloud before it is engraved.

    Raises:
        ExportError: a value out of range, a volume without light, no room for two points, or a missing library.
        WriteError: the disk is full, or the folder cannot be written.
    """
    path = Path(path)
    suffix = check_output(path, POINT_FORMATS)
    if not 2 <= count <= MAX_COUNT:
        raise ExportError(f"count={count}: must be in [2, {MAX_COUNT}]")
    if not 0.0 <= min_distance_mm <= 1e3:
        raise ExportError(f"min_distance_mm={min_distance_mm}: must be in [0, 1000]")
    if not 0.1 <= size_mm <= 1e4:
        raise ExportError(f"size_mm={size_mm}: must be in [0.1, 10000]")
    if not 0 <= seed < 2**63:
        raise ExportError(f"seed={seed}: must be in [0, 2^63 - 1]")
    require("scipy", "points")
    values = as_array(volume, besides=BYTES_OF_A_VOXEL, tell=part(tell, 0.0, 0.1))
    light, bright = emitted_light(values, part(tell, 0.1, 0.3))
    if not light.any():
        raise ExportError("volume: gives no light back from any side, so there is nothing to make points of")
    # Two roundings of each coordinate to float32 move a point by at most 2 sqrt(3) of these.
    least = min_distance_mm + 4.0 * float(np.spacing(np.float32(size_mm / 2.0)))
    placing = part(tell, 0.3, 0.9)
    words = f"placing {count:,} points"
    points = blue_noise(light, count, 2.0 * least / size_mm, seed, lambda done: placing(done / count, words))
    if len(points) < 2:
        raise ExportError(
            f"min_distance_mm={min_distance_mm}: must be smaller, no two points fit at size_mm={size_mm:g}"
        )
    # upright, as meshes are
    placed = (points[:, [0, 2, 1]] * np.array([1, 1, -1]) * (size_mm / 2.0)).astype(np.float32)
    tell(0.9, "comparing with the views")
    report = _inspected(values, points, placed, count)
    described = {
        **(description or {}),
        "format": suffix,
        "unit": "mm",
        "axes": "x right, y away from the viewer, z up",
        "size_mm": size_mm,
        "min_distance_mm": min_distance_mm,
        "seed": seed,
        "report": report.as_dict(),
    }
    tell(0.95, f"writing {path.name}")
    with whole_files(path) as folder:
        WRITERS[suffix](placed, _brightness_at(bright, points), folder / path.name)
        write_description(folder, path.name, described)
    return report


def _inspected(
    values: Float[np.ndarray, "2 Z Y X"],
    points: Float[np.ndarray, "P 3"],
    placed: Float[np.ndarray, "P 3"],
    wanted: int,
) -> PointReport:
    nearest = require("scipy.spatial", "points", "scipy").cKDTree(placed).query(placed, k=2)[0][:, 1]
    x, y, z = (float(edge) for edge in np.ptp(placed, axis=0))
    return PointReport(
        count=len(placed),
        wanted=wanted,
        least_mm=float(nearest.min()),
        usual_mm=float(np.median(nearest)),
        bounding_box_mm=(x, y, z),
        psnr=likeness(values, points),
    )


def _brightness_at(bright: Float[np.ndarray, "Z Y X"], points: Float[np.ndarray, "P 3"]) -> Float[np.ndarray, " P"]:
    """1 - absorbance of the voxel that each point lies in."""
    shape = np.array(bright.shape)
    index = np.clip(((points[:, ::-1] + 1.0) * shape / 2.0).astype(np.int64), 0, shape - 1)
    return bright[tuple(index.T)].astype(np.float32)


def _ply(placed: Float[np.ndarray, "P 3"], brightness: Float[np.ndarray, " P"], path: Path) -> None:
    """Binary. The brightness is there as a number, and as a colour for viewers that show those."""
    table = np.empty(len(placed), PLY_POINT)
    table["place"], table["brightness"] = placed, brightness
    table["colour"] = np.rint(255.0 * brightness).astype(np.uint8)[:, None]
    with path.open("wb") as file:
        file.write(PLY_HEADER.format(count=len(placed)).encode("ascii"))
        file.write(table.tobytes())


def _xyz(placed: Float[np.ndarray, "P 3"], brightness: Float[np.ndarray, " P"], path: Path) -> None:
    """A line a point, in as many digits as float32 has: the distances hold in the file too."""
    np.savetxt(path, placed, fmt="%.9g")


def _dxf(placed: Float[np.ndarray, "P 3"], brightness: Float[np.ndarray, " P"], path: Path) -> None:
    """AutoCAD R12 in text, POINT after POINT: all readers know it, and it is too little for a library.

    Source: AutoCAD Release 12 Customization Manual, "Drawing Interchange Files": group codes 0, 8, 10, 20, 30.
    """
    lines = "0\nPOINT\n8\n0\n10\n%.9g\n20\n%.9g\n30\n%.9g\n"
    with path.open("w", encoding="ascii", newline="\n") as file:
        file.write("0\nSECTION\n2\nHEADER\n9\n$ACADVER\n1\nAC1009\n0\nENDSEC\n0\nSECTION\n2\nENTITIES\n")
        for begin in range(0, len(placed), POINTS_AT_ONCE):
            some = placed[begin : begin + POINTS_AT_ONCE]
            file.write(lines * len(some) % tuple(some.ravel().tolist()))
        file.write("0\nENDSEC\n0\nEOF\n")


Writer = Callable[[np.ndarray, np.ndarray, Path], None]
WRITERS: dict[str, Writer] = {".ply": _ply, ".xyz": _xyz, ".dxf": _dxf}
