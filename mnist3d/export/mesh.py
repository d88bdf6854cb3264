"""Surfaces for printers, game engines and viewers: ply, stl, obj, glb, 3mf.

What it is: marching cubes at a level, made fit for use, and written by suffix. What it is not: the choice of the level
(`solid`), or the check whether it can be printed (`printability`).
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from ..volumes.base import Volume
from .files import ExportError, check_output, require, whole_files, write_description
from .printability import MeshReport, inspect_mesh
from .sampling import as_voxels, upright
from .solid import Matter, best_level, matter_field

MESH_FORMATS: dict[str, str] = {
    ".ply": "Blender, MeshLab, CloudCompare",
    ".stl": "every slicer, Blender, MeshLab",
    ".obj": "Blender, MeshLab, Unity, Maya",
    ".glb": "browsers (three.js, model-viewer), Blender, Windows 3D Viewer, Unity, Godot",
    ".3mf": "PrusaSlicer, Cura, Bambu Studio, Windows 3D Viewer",
}
Y_UP = (".obj", ".glb")  # glTF demands it, most readers of OBJ expect it; the others are read with z up
SIZE_MM = 60.0
MAX_SMOOTHING = 100


def export_mesh(
    volume: Volume | ArrayLike,
    path: str | Path,
    *,
    level: float | None = None,
    matter: Matter = "bright",
    resolution: int | None = None,
    smoothing: int = 0,
    largest_only: bool = False,
    size_mm: float = SIZE_MM,
    description: dict[str, Any] | None = None,
) -> MeshReport:
    """Write the surface of a volume as the mesh that the suffix of `path` names, and `PATH.json` beside it.

    Args:
        volume: any backend, or an array (2, Z, Y, X) in the world's axes.
        path: its suffix is one of `MESH_FORMATS`.
        level: attenuation per world unit where the surface lies; None: the one that looks most like the pictures.
        matter: bright: only what gives light back (attenuation * (1 - absorbance)), for printing in one colour; all:
            the absorbing matter too, which with its vertex colours looks as the pictures do.
        resolution: voxels along the longest edge, 1 to 1024; default a grid's own, 128 for a field.
        smoothing: passes of Taubin's filter, 0 to 100.
        largest_only: drop all pieces but the largest.
        size_mm: longest edge of the bounding box in mm, 0.1 to 10000. All formats are in mm, glb in metres.
        description: where the volume comes from; it goes into the .json.

    Returns:
        What can be said of the mesh before it is printed.

    Raises:
        ExportError: a value out of range, nothing solid at that level, a missing library, a disk that cannot be
            written.
    """
    path = Path(path)
    suffix = check_output(path, MESH_FORMATS)
    if not 0.1 <= size_mm <= 1e4:
        raise ExportError(f"size_mm={size_mm}: allowed are 0.1 to 10000")
    if not 0 <= smoothing <= MAX_SMOOTHING:
        raise ExportError(f"smoothing={smoothing}: allowed are 0 to {MAX_SMOOTHING} passes")
    trimesh = require("trimesh", f"{suffix} meshes")
    if suffix == ".3mf":
        require("lxml", ".3mf meshes")
    values = as_voxels(volume, resolution).values
    match = None
    if level is None:
        level, match = best_level(values, matter)
    opacity, threshold = _contoured_field(values, matter, level)
    vertices, faces, brightness = _surface(values, opacity, threshold)
    if len(faces) == 0 or not np.ptp(vertices, axis=0).any():
        raise ExportError(f"level={level:.4g}: no surface is left there, it is too near the highest value; lower it")
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    grey = np.rint(255.0 * brightness).astype(np.uint8)
    mesh.visual.vertex_colors = np.stack([grey, grey, grey, np.full_like(grey, 255)], axis=1)
    if largest_only:
        mesh = max(mesh.split(only_watertight=False), key=lambda piece: len(piece.faces), default=mesh)
    if smoothing:
        trimesh.smoothing.filter_taubin(mesh, iterations=smoothing)
    mm_per_unit = size_mm / float(mesh.extents.max())
    report = inspect_mesh(mesh, opacity, threshold, level=level, match=match, mm_per_unit=mm_per_unit)
    mesh.apply_scale(mm_per_unit)
    if suffix in Y_UP:
        mesh.apply_transform([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    if suffix == ".glb":
        mesh.apply_scale(1e-3)
    else:
        mesh.units = "mm"
    described = {
        **(description or {}),
        "format": suffix,
        "unit": "m" if suffix == ".glb" else "mm",
        "axes": "x right, y up, z towards the viewer" if suffix in Y_UP else "x right, y away from the viewer, z up",
        "matter": matter,
        "report": report.as_dict(),
    }
    with whole_files(path) as folder:
        mesh.export(folder / path.name, file_type=suffix[1:])
        write_description(folder, path.name, described)
    return report


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
        allowed = f"allowed are values above 0 up to {highest:.4g}" if highest > 0 else "the volume is empty"
        raise ExportError(f"level={level:.4g}: nothing is solid there; {allowed}")
    step = 2.0 / max(field.shape)
    opacity = np.pad(field, 1)
    opacity *= np.float32(-step)  # in place from here: a fine grid is large
    np.expm1(opacity, out=opacity)
    np.negative(opacity, out=opacity)
    threshold = float(-np.expm1(-level * step))
    return opacity, min(threshold, float(np.nextafter(opacity.max(), np.float32(0.0))))


def _surface(
    values: Float[np.ndarray, "2 Z Y X"], opacity: Float[np.ndarray, "up away right"], threshold: float
) -> tuple[Float[np.ndarray, "V 3"], Int[np.ndarray, "F 3"], Float[np.ndarray, " V"]]:
    """Marching cubes: vertices (x right, y away, z up) in world units, triangles with outward normals, brightness."""
    from scipy.ndimage import map_coordinates

    measure = require("skimage.measure", "meshes", "scikit-image")
    corners, faces, _, _ = measure.marching_cubes(opacity, threshold, allow_degenerate=False)
    shape = np.array(opacity.shape) - 2
    zyx = (2.0 * (corners - 1.0) + 1.0) / shape - 1.0
    # Weighted by opacity: what lies outside the surface is seen by nobody, whatever its absorbance.
    lit = np.pad(1.0 - upright(values[1]), 1)
    lit *= opacity
    weight = np.maximum(map_coordinates(opacity, corners.T, order=1), np.finfo(np.float32).tiny)
    brightness = map_coordinates(lit, corners.T, order=1) / weight
    # scikit-image's triangles face inward in its own index order; xyz is its mirror image, where they face outward.
    return zyx[:, ::-1].astype(np.float64), faces, np.clip(brightness, 0.0, 1.0)
