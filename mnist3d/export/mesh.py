"""Surfaces for printers, game engines and viewers: ply, stl, obj, glb, 3mf.

A surface at a level, made fit for use, and written by suffix. `solid` chooses the level, `surface` contours it,
`printability` says whether it can be printed.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy.typing import ArrayLike

from ..errors import ExportError
from ..formats import upright
from ..storage import check_output, require, whole_files, write_description
from ..volumes.base import Field
from .connect import MIN_WALL_MM, Connected, connected
from .printability import MeshReport, inspect_surface
from .sampling import as_array
from .shares import Tell, part, silent
from .solid import Matter, best_level, matter_field
from .surface import FACES_AT_ONCE, Surface, contour, smoothed, unit_normals

MESH_FORMATS: dict[str, str] = {
    ".ply": "Blender, MeshLab, CloudCompare",
    ".stl": "every slicer, Blender, MeshLab",
    ".obj": "Blender, MeshLab, Unity, Maya",
    ".glb": "browsers (three.js, model-viewer), Blender, Windows 3D Viewer, Unity, Godot",
    ".3mf": "PrusaSlicer, Cura, Bambu Studio, Windows 3D Viewer",
}
Y_UP = (".obj", ".glb")  # glTF demands it, most readers of OBJ expect it; the others are read with z up
SIZE_MM = 60.0
BYTES_OF_A_VOXEL = 12  # besides the voxels: what counts as solid, the field that is contoured, its border's copy
MAX_SMOOTHING = 100
Connect = Literal["none", "bridges"]
STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def export_mesh(
    volume: Field | ArrayLike,
    path: str | Path,
    *,
    level: float | None = None,
    matter: Matter = "bright",
    resolution: int | None = None,
    smoothing: int = 0,
    largest_only: bool = False,
    size_mm: float = SIZE_MM,
    connect: Connect = "none",
    min_wall_mm: float = MIN_WALL_MM,
    description: dict[str, Any] | None = None,
    tell: Tell = silent,
) -> MeshReport:
    """Write the surface of a volume as the mesh that the suffix of `path` names, and `PATH.json` beside it.

    Args:
        volume: any backend, or an array (2, Z, Y, X) in the world's axes.
        path: its suffix is one of `MESH_FORMATS`.
        level: attenuation per world unit where the surface lies; None: the one that looks most like the views.
        matter: bright: only what gives light back (attenuation * (1 - absorbance)), for printing in one colour; all:
            the absorbing matter too, which with its vertex colours looks as the views do.
        resolution: voxels along the longest edge, 1 to 1024; default a grid's own, 128 for a field.
        smoothing: passes of Taubin's filter, 0 to 100.
        largest_only: drop all pieces but the largest.
        size_mm: longest edge of the bounding box in mm, 0.1 to 10000. All formats are in mm, glb in metres.
        connect: bridges: one piece. Crumbs are dropped, hollows filled, walls thinner than `min_wall_mm` thickened,
            and the pieces joined by the shortest bridges.
        min_wall_mm: with `connect`: thinnest wall, and thickness of the bridges, 0.1 mm to a sixth of `size_mm`.
        description: where the volume comes from; it goes into the .json.
        tell: is handed the share that is done and what is done now, for a bar.

    Returns:
        What can be said of the mesh before it is printed.

    Raises:
        ExportError: a value out of range, nothing solid at that level, or a missing library.
        WriteError: the disk is full, or the folder cannot be written.
    """
    path = Path(path)
    suffix = check_output(path, MESH_FORMATS)
    if not 0.1 <= size_mm <= 1e4:
        raise ExportError(f"size_mm={size_mm}: must be in [0.1, 10000]")
    if not 0 <= smoothing <= MAX_SMOOTHING:
        raise ExportError(f"smoothing={smoothing}: must be in [0, {MAX_SMOOTHING}] (passes)")
    _check_libraries(suffix, smoothing)
    if connect != "none" and not 0.1 <= min_wall_mm <= size_mm / 6.0:
        raise ExportError(f"min_wall_mm={min_wall_mm:g}: must be in [0.1, {size_mm / 6.0:.4g}], a sixth of size_mm")
    values = as_array(volume, resolution, besides=BYTES_OF_A_VOXEL, tell=part(tell, 0.0, 0.2))
    match = None
    if level is None:
        level, match = best_level(values, matter, part(tell, 0.2, 0.35))
    wall_mm = None if connect == "none" else min_wall_mm
    surface, report = _inspected(values, matter, level, match, smoothing, largest_only, size_mm, wall_mm, tell)
    del values  # of a field, a fine grid that is not needed any more
    placed = _in_unit_and_axes(surface, size_mm, suffix)
    described = {
        **(description or {}),
        "format": suffix,
        "unit": placed.unit,
        "axes": "x right, y up, z towards the viewer" if suffix in Y_UP else "x right, y away from the viewer, z up",
        "matter": matter,
        "report": report.as_dict(),
    }
    tell(0.95, f"writing {path.name}")
    with whole_files(path) as folder:
        WRITERS.get(suffix, _written_by_trimesh)(placed, folder / path.name)
        write_description(folder, path.name, described)
    return report


def _check_libraries(suffix: str, smoothing: int) -> None:
    """Fail before the work, which may take minutes, and not in the middle of it.

    Raises:
        ExportError: a library is missing.
    """
    require("scipy", "meshes")
    require("skimage.measure", "meshes", "scikit-image")
    if suffix not in WRITERS:
        require("trimesh", f"{suffix} meshes")
    if smoothing:
        require("trimesh", "smoothing")
    if suffix == ".3mf":
        require("lxml", ".3mf meshes")
        require("networkx", ".3mf meshes")


def _inspected(
    values: Float[np.ndarray, "2 Z Y X"],
    matter: Matter,
    level: float,
    match: float | None,
    smoothing: int,
    largest_only: bool,
    size_mm: float,
    wall_mm: float | None,
    tell: Tell,
) -> tuple[Surface, MeshReport]:
    """The surface and what there is to say of it; the field that it is contoured from ends with this call."""
    opacity, threshold = _contoured_field(values, matter, level)
    made, absorbance = None, upright(values[1])
    if wall_mm is not None:
        told = part(tell, 0.35, 0.8)
        made = connected(
            values, opacity, threshold, matter=matter, level=level, size_mm=size_mm, wall_mm=wall_mm, tell=told
        )
        opacity, threshold, absorbance = made.field, 1.0, made.absorbance
    tell(0.8, "contouring")
    surface = contour(opacity, threshold, absorbance)
    if len(surface.faces) == 0 or not surface.extents.any():
        raise ExportError(f"level={level:.4g}: no surface is left there, it is too near the highest value; lower it")
    if largest_only:
        pieces = surface.pieces()
        surface = surface.part(pieces == np.bincount(pieces).argmax())
    if smoothing:
        tell(0.83, "smoothing")
        surface = smoothed(surface, smoothing)
    mm_per_unit = size_mm / float(surface.extents.max())
    tell(0.88, "measuring")
    report = inspect_surface(surface, opacity, threshold, level=level, match=match, mm_per_unit=mm_per_unit)
    return (surface, report) if made is None else _of_the_world(made, surface, report, mm_per_unit / (size_mm / 2.0))


def _of_the_world(made: Connected, surface: Surface, report: MeshReport, grown: float) -> tuple[Surface, MeshReport]:
    """What was made on a cube of its own, back in its place, and its figures in the mm of the file."""
    done = made.connection
    done = replace(done, bridges_mm=grown * done.bridges_mm, wall_mm=grown * done.wall_mm)
    if report.match is not None:
        report = replace(report, match=done.match_after)
    vertices = (made.centre + made.half * surface.vertices).astype(np.float32)
    return replace(surface, vertices=vertices), replace(report, connection=done)


@dataclass(frozen=True)
class _Placed:
    """A surface as a file holds it: in the file's unit and axes, with the file's unit in words."""

    vertices: Float[np.ndarray, "V 3"]
    faces: Int[np.ndarray, "F 3"]
    grey: UInt8[np.ndarray, " V"]
    unit: str


def _in_unit_and_axes(surface: Surface, size_mm: float, suffix: str) -> _Placed:
    """In mm, or in metres for glb; z or y up; vertices coloured."""
    unit, scale = ("m", 1e-3) if suffix == ".glb" else ("mm", 1.0)
    scale *= size_mm / float(surface.extents.max())
    vertices = scale * surface.vertices.astype(np.float64)
    if suffix in Y_UP:
        vertices = np.stack([vertices[:, 0], vertices[:, 2], -vertices[:, 1]], axis=1)
    return _Placed(vertices, surface.faces, np.rint(255.0 * surface.brightness).astype(np.uint8), unit)


def _contoured_field(
    values: Float[np.ndarray, "2 Z Y X"], matter: Matter, level: float
) -> tuple[Float[np.ndarray, "up away right"], float]:
    """Upright, with a border of empty voxels, so that every surface is closed; and the threshold in it.

    What is contoured is the opacity of a voxel step, as in the renderer: an opaque voxel's border then stays where it
    is instead of creeping outwards with its attenuation.

    Raises:
        ExportError: nothing is solid at this level.
    """
    field = upright(matter_field(values, matter))
    highest = float(field.max())
    if not 0.0 < level <= highest:
        wanted = f"must be > 0 and <= {highest:.4g}" if highest > 0 else "the volume is empty"
        raise ExportError(f"level={level:.4g}: nothing is solid there; {wanted}")
    step = 2.0 / max(field.shape)
    opacity = np.pad(field, 1)
    opacity *= np.float32(-step)  # in place from here: a fine grid is large
    np.expm1(opacity, out=opacity)
    np.negative(opacity, out=opacity)
    threshold = float(-np.expm1(-level * step))
    return opacity, min(threshold, float(np.nextafter(opacity.max(), np.float32(0.0))))


def _written_by_trimesh(surface: _Placed, path: Path) -> None:
    """The formats that have no writer here; trimesh takes half a second to import."""
    trimesh = require("trimesh", f"{path.suffix} meshes")
    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    mesh.visual.vertex_colors = np.stack([*[surface.grey] * 3, np.full_like(surface.grey, 255)], axis=1)
    if surface.unit == "mm":
        mesh.units = "mm"
    mesh.export(path, file_type=path.suffix[1:])


def _stl(surface: _Placed, path: Path) -> None:
    """Part by part: trimesh's own writer holds several times the volume in corners and normals."""
    with path.open("wb") as file:
        file.write(bytes(80) + len(surface.faces).to_bytes(4, "little"))  # of the header readers expect nothing
        for begin in range(0, len(surface.faces), FACES_AT_ONCE):
            corners = surface.vertices[surface.faces[begin : begin + FACES_AT_ONCE]]
            part = np.zeros(len(corners), STL_TRIANGLE)
            part["normal"], part["corners"] = unit_normals(corners), corners
            file.write(part.tobytes())


def _obj(surface: _Placed, path: Path) -> None:
    """Line by line; trimesh makes one text of everything. Colours follow the position, as MeshLab reads them."""
    with path.open("wb") as file:
        for begin in range(0, len(surface.vertices), FACES_AT_ONCE):
            some = slice(begin, begin + FACES_AT_ONCE)
            colours = np.repeat(surface.grey[some, None] / 255.0, 3, axis=1)
            np.savetxt(file, np.hstack([surface.vertices[some], colours]), fmt="v %.7g %.7g %.7g %.4g %.4g %.4g")
        np.savetxt(file, surface.faces + 1, fmt="f %d %d %d")


WRITERS = {".stl": _stl, ".obj": _obj}
