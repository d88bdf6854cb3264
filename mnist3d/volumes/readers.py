"""Other tools' voxel files -> the array of a VoxelGrid.

What it is: one reader a format, each by that format's own library, and the turn from upright axes to the world's.
What it is not: it runs no code from a file, and writes none (`export`).
"""

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float

from .files import VolumeFileError

MAX_EDGE = 1024  # voxels, as VoxelGrid
ABSORBANCE = "_absorbance"  # NAME_absorbance.SUFFIX beside a file of one channel
# How each of NRRD's spaces is turned into left, posterior, superior.
SPACES = {
    "left-posterior-superior": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "3d-right-handed": (1, 1, 1),
    "lps": (1, 1, 1),
    "ras": (-1, -1, 1),
    "las": (1, -1, 1),
}


@dataclass
class _Found:
    """What lies in a file: channels as (up, away, right), and the distances of voxels along right, away, up."""

    attenuation: np.ndarray
    absorbance: np.ndarray | None
    spacing: Sequence[float]


def read_voxels(path: str | Path) -> Float[np.ndarray, "2 Z Y X"]:
    """Attenuation per world unit and absorbance of a voxel file, in the world's axes, filling [-1, 1]^3.

    The box of the file is put in the middle, its longest edge as long as the cube's; what is then beyond the unit ball
    is not rendered. Lengths and attenuation are taken in the same unit, so that the optical depth stays. A file of one
    channel is attenuation; its absorbance is NAME_absorbance.SUFFIX beside it, or 0.

    Args:
        path: .npz, .nrrd, .nii.gz, .nii, .mrc, .vti or .vdb, ours or another tool's.

    Raises:
        VolumeFileError: missing or damaged file, unknown suffix, no reader installed, or values out of range.
    """
    path = Path(path)
    suffix = next((suffix for suffix in READERS if path.name.lower().endswith(suffix)), None)
    if suffix is None:
        raise VolumeFileError(f"{path}: unknown suffix; allowed are {', '.join(READERS)}")
    if not path.is_file():
        raise VolumeFileError(f"{path}: no such file")
    try:
        found = READERS[suffix](path)
        beside = path.with_name(path.name[: -len(suffix)] + ABSORBANCE + path.name[-len(suffix) :])
        if found.absorbance is None and beside.is_file():
            found.absorbance = READERS[suffix](beside).attenuation
    except VolumeFileError:
        raise
    except Exception as error:  # every library has its own
        raise VolumeFileError(f"{path}: damaged, or not what its suffix says ({_one_line(error)})") from None
    return _in_the_world(path, found)


def _in_the_world(path: Path, found: _Found) -> Float[np.ndarray, "2 Z Y X"]:
    attenuation = np.asarray(found.attenuation, np.float32)
    if attenuation.ndim != 3 or 0 in attenuation.shape or max(attenuation.shape) > MAX_EDGE:
        raise VolumeFileError(f"{path}: its shape is {attenuation.shape}; allowed are three edges of 1 to {MAX_EDGE}")
    absorbance = np.zeros_like(attenuation) if found.absorbance is None else np.asarray(found.absorbance, np.float32)
    if absorbance.shape != attenuation.shape:
        raise VolumeFileError(f"{path}: absorbance {absorbance.shape} does not fit attenuation {attenuation.shape}")
    low, high = float(attenuation.min()), float(attenuation.max())
    if not (low >= 0.0 and high < np.inf):
        raise VolumeFileError(
            f"{path}: its values lie in [{low:g}, {high:g}]; attenuation must be finite and >= 0, so subtract "
            f"{low:g} in the tool that made it"
        )
    if not (float(absorbance.min()) >= 0.0 and float(absorbance.max()) <= 1.0):
        raise VolumeFileError(f"{path}: its absorbance leaves [0, 1]")
    values = np.stack([attenuation, absorbance]).transpose(0, 2, 1, 3)[:, :, ::-1]  # to (Z, Y, X), y down
    spacing = np.array([found.spacing[1], found.spacing[2], found.spacing[0]], float)  # along z, y, x
    if not (np.isfinite(spacing).all() and (spacing > 0.0).all()):
        spacing = np.ones(3)
    extent = spacing * values.shape[1:]
    wanted = np.maximum(np.rint(extent.max() / spacing), 1).astype(int)
    if wanted.max() > MAX_EDGE:
        raise VolumeFileError(f"{path}: a cube around it has {wanted.max()} voxels an edge; allowed are {MAX_EDGE}")
    missing = np.maximum(wanted - values.shape[1:], 0)
    values = np.pad(values, [(0, 0), *((int(n // 2), int(n - n // 2)) for n in missing)])
    values[0] *= np.float32(extent.max() / 2.0)
    return values


def _npz(path: Path) -> _Found:
    with np.load(path, allow_pickle=False) as file:
        missing = {"attenuation", "absorbance", "spacing_xyz"} - set(file.files)
        if missing:
            raise VolumeFileError(f"{path}: holds no {', '.join(sorted(missing))}; tools/export_voxels.py writes them")
        x, y, z = (float(step) for step in file["spacing_xyz"])
        attenuation, absorbance = (file[name][:, ::-1].transpose(1, 0, 2) for name in ("attenuation", "absorbance"))
    return _Found(attenuation, absorbance, (x, z, y))


def _nrrd(path: Path) -> _Found:
    nrrd = _library("nrrd", path, "pynrrd")
    with path.open("rb") as file:
        if {"data file", "datafile"} & {str(key).lower() for key in nrrd.read_header(file)}:
            raise VolumeFileError(f"{path}: its voxels lie in another file; write both into one .nrrd")
    data, header = nrrd.read(str(path), index_order="F")
    directions = header.get("space directions")
    if directions is None:
        directions = np.diag(np.abs(header.get("spacings", np.ones(data.ndim))))
    space = str(header.get("space", "left-posterior-superior")).lower()
    if data.ndim != 3 or space not in SPACES:
        raise VolumeFileError(f"{path}: {data.ndim} axes in space {space}; allowed are one channel on 3 axes in space")
    return _turned(data, np.diag(SPACES[space]) @ np.asarray(directions, float).T)


def _nifti(path: Path) -> _Found:
    image = _library("nibabel", path).load(str(path))
    data = np.asarray(image.dataobj, np.float32)
    data = data.reshape(data.shape[:3]) if data.ndim > 3 and data[..., 0].size == data.size else data
    return _turned(data, np.diag([-1.0, -1.0, 1.0]) @ image.affine[:3, :3])


def _mrc(path: Path) -> _Found:
    with _library("mrcfile", path).open(str(path), permissive=False) as mrc:
        axes = [int(mrc.header[name]) for name in ("mapc", "mapr", "maps")]  # which of x, y, z each stored axis is
        stored = np.array(mrc.data, np.float32).transpose(2, 1, 0)
        data = stored.transpose(np.argsort(axes))
        size = mrc.voxel_size
    return _Found(data.transpose(2, 1, 0), None, (float(size.x), float(size.y), float(size.z)))


def _vti(path: Path) -> _Found:
    _library("vtkmodules", path, "vtk")
    from vtkmodules.util.numpy_support import vtk_to_numpy  # pyright: ignore[reportMissingImports]
    from vtkmodules.vtkIOXML import vtkXMLImageDataReader  # pyright: ignore[reportMissingImports]

    reader = vtkXMLImageDataReader()
    reader.SetFileName(str(path))
    reader.Update()
    image = reader.GetOutput()
    points = image.GetPointData()
    names = [points.GetArrayName(k) for k in range(points.GetNumberOfArrays())]
    if not names:
        raise VolumeFileError(f"{path}: holds no point data")
    shape = image.GetDimensions()[::-1]
    first = "attenuation" if "attenuation" in names else names[0]
    absorbance = points.GetArray("absorbance") if "absorbance" in names else None
    return _Found(
        vtk_to_numpy(points.GetArray(first)).reshape(shape),
        None if absorbance is None else vtk_to_numpy(absorbance).reshape(shape),
        image.GetSpacing(),
    )


def _vdb(path: Path) -> _Found:
    try:
        openvdb = _library("openvdb", path)
    except VolumeFileError:
        openvdb = _library("pyopenvdb", path, "OpenVDB (Debian: python3-openvdb)")
    grids, metadata = openvdb.readAll(str(path))
    named = {grid.name: grid for grid in grids}
    main = named.get("attenuation") or named.get("density") or (grids[0] if grids else None)
    if main is None:
        raise VolumeFileError(f"{path}: holds no grid")
    if "mnist3d" in metadata:  # empty voxels at the border are not stored, but belong to the box
        z, y, x = json.loads(metadata["mnist3d"])["resolution_zyx"]
        first, shape = (0, 0, 0), (x, z, y)
    else:
        first, last = main.evalActiveVoxelBoundingBox()
        shape = tuple(high - low + 1 for low, high in zip(first, last, strict=True))
    if max(shape) > MAX_EDGE:
        raise VolumeFileError(f"{path}: {shape} voxels; allowed are {MAX_EDGE} along an edge")

    def dense(grid: Any) -> np.ndarray:
        array = np.zeros(shape, np.float32)
        grid.copyToArray(array, ijk=first)
        return array.transpose(2, 1, 0)

    absorbance = dense(named["absorbance"]) if main.name == "attenuation" and "absorbance" in named else None
    return _Found(dense(main), absorbance, main.transform.voxelSize())


READERS: dict[str, Callable[[Path], _Found]] = {
    ".npz": _npz,
    ".nrrd": _nrrd,
    ".nii.gz": _nifti,
    ".nii": _nifti,
    ".mrc": _mrc,
    ".vti": _vti,
    ".vdb": _vdb,
}


def _turned(data: np.ndarray, directions: Float[np.ndarray, "3 3"]) -> _Found:
    """Axes permuted and flipped so that they run left, posterior, superior; what is oblique is taken as straight.

    Args:
        data: indexed by the file's three axes.
        directions: a column each: the step along it, in left, posterior, superior.
    """
    largest = np.abs(directions).argmax(axis=0)
    if sorted(largest) != [0, 1, 2]:
        raise VolumeFileError("its axes' directions are degenerate")
    order = np.argsort(largest)
    flipped = tuple(axis for axis in range(3) if directions[axis, order[axis]] < 0)
    spacing = np.linalg.norm(directions, axis=0)[order]
    return _Found(np.flip(data.transpose(order), flipped).transpose(2, 1, 0), None, tuple(spacing))


def _library(module: str, path: Path, package: str | None = None) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError:
        remedy = "" if package and package.startswith("OpenVDB") else ": pip install " + (package or module)
        raise VolumeFileError(f"{path}: reading it needs {package or module}{remedy}") from None


def _one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
