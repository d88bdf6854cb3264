"""What is to be known of a mesh before it is printed.

Figures about a finished surface; nothing is repaired here.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from ..kernels.absorption import sample_grid
from .connect import Connection
from .surface import Surface

MEASURED_FACES = 20_000
MARCH = 0.25  # of a voxel
THIN_SHARE = 0.01  # of the surface may be thinner than the figure: edges run out to nothing
LEAST_WALL_MM = 0.8  # two lines of a 0.4 mm nozzle, the usual advice for filament printers


@dataclass
class MeshReport:
    """Figures about a mesh, in mm.

    Args:
        level: attenuation per world unit where the surface lies.
        match: how much it looks like the volume's views, [0, 1]; None where the level was given.
        watertight: closed, with consistent normals.
        pieces: connected parts.
        largest_share: of the largest part, of all faces.
        thinnest_wall_mm: 1 % of the surface is thinner, measured inward along the normal to about half a voxel.
        volume_mm3: enclosed.
        bounding_box_mm: along x (right), y (away from the viewer), z (up).
        vertices: number of them.
        faces: number of triangles.
        connection: what was done to make one piece of it; None where nothing was asked for.
    """

    level: float
    match: float | None
    watertight: bool
    pieces: int
    largest_share: float
    thinnest_wall_mm: float
    volume_mm3: float
    bounding_box_mm: tuple[float, float, float]
    vertices: int
    faces: int
    connection: Connection | None = None

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """For people: a line a figure, with what to do where it is bad."""
        x, y, z = self.bounding_box_mm
        match = "as asked for" if self.match is None else f"looks like the views to {self.match:.2f} (1: the same)"
        pieces = f"{self.pieces}"
        if self.pieces > 1:
            pieces += f", the largest with {self.largest_share:.0%} of the faces; --connect bridges joins them"
            pieces += ", --largest keeps only that"
        thin = "" if self.thinnest_wall_mm >= LEAST_WALL_MM else f"; below {LEAST_WALL_MM} mm: a larger --size_mm"
        return [
            f"level           {self.level:.4g} per world unit, {match}",
            f"watertight      {'yes' if self.watertight else 'no: let the slicer repair it'}",
            f"pieces          {pieces}",
            f"thinnest wall   {self.thinnest_wall_mm:.2f} mm{thin}",
            f"volume          {self.volume_mm3 / 1000.0:.2f} cm3",
            f"bounding box    {x:.1f} x {y:.1f} x {z:.1f} mm (right, away, up)",
            f"triangles       {self.faces:,}",
            *(self.connection.lines() if self.connection else ()),
        ]


def inspect_surface(
    surface: Surface,
    opacity: Float[np.ndarray, "up away right"],
    threshold: float,
    *,
    level: float,
    match: float | None,
    mm_per_unit: float,
) -> MeshReport:
    """The figures of a surface.

    Args:
        surface: in world units.
        opacity: the field that it was contoured from, upright, padded by one voxel.
        threshold: where.
        level: the same in attenuation.
        match: see `MeshReport`.
        mm_per_unit: what a world unit will be.
    """
    counts = np.bincount(surface.pieces())
    x, y, z = (float(edge) * mm_per_unit for edge in surface.extents)
    return MeshReport(
        level=level,
        match=match,
        watertight=surface.is_closed,
        pieces=len(counts),
        largest_share=float(counts.max() / counts.sum()),
        thinnest_wall_mm=_thinnest_wall(surface, opacity, threshold) * mm_per_unit,
        volume_mm3=surface.enclosed_volume * mm_per_unit**3,
        bounding_box_mm=(x, y, z),
        vertices=len(surface.vertices),
        faces=len(surface.faces),
    )


def _thinnest_wall(surface: Surface, opacity: Float[np.ndarray, "up away right"], threshold: float) -> float:
    """Marches inward from the faces until the field falls below the threshold again; world units."""
    begin, outward = surface.triangles(slice(None, None, max(1, len(surface.faces) // MEASURED_FACES)))
    field = torch.from_numpy(opacity)[None]
    size = np.array(opacity.shape[::-1]) - 2  # along x, y, z, without the border of empty voxels
    step = MARCH * 2.0 / size.max()
    thickness = np.full(len(begin), np.inf)
    for k in range(2, int(4.0 / step)):  # the first half voxel is the surface's own blur
        left = np.flatnonzero(np.isinf(thickness))
        if len(left) == 0:
            break
        place = torch.from_numpy((begin[left] - k * step * outward[left]) * size / (size + 2.0)).to(field)
        inside = sample_grid(field, place[None, None, None]).flatten() >= threshold
        thickness[left[~inside.numpy()]] = (k - 0.5) * step
    return float(np.quantile(thickness, THIN_SHARE, method="lower"))
