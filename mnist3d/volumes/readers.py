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
WHOLE = 1e-3  # as a share: spacings are often written with few digits
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
    is not rendered. Voxels stay as they are, which may leave the box half a voxel beside the middle, unless the cube's
    edge is no whole number of them: then they are averaged along that axis to as many as come nearest. Lengths and
    attenuation are taken in the same unit, so that the optical depth stays. A file of one channel is attenuation; its
    absorbance is NAME_absorbance.SUFFIX beside it, or 0.

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
    _check_shape(path, attenuation.shape)
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
    across = extent.max() / spacing
    wanted = np.maximum(np.rint(across), 1).astype(int)
    if wanted.max() > MAX_EDGE:
        raise VolumeFileError(f"{path}: a cube around it has {wanted.max()} voxels an edge; allowed are {MAX_EDGE}")
    for axis in np.flatnonzero(abs(wanted - across) > WHOLE * across):
        values = _resampled(values, 1 + int(axis), float(across[axis]), int(wanted[axis]))
    missing = np.maximum(wanted - values.shape[1:], 0)
    values = np.pad(values, [(0, 0), *((int(n // 2), int(n - n // 2)) for n in missing)])
    values[0] *= np.float32(extent.max() / 2.0)
    return values


def _check_shape(path: Path, shape: Sequence[int]) -> None:
    if len(shape) != 3 or 0 in shape or max(shape) > MAX_EDGE:
        raise VolumeFileError(f"{path}: its shape is {tuple(shape)}; allowed are three edges of 1 to {MAX_EDGE}")


def _resampled(values: Float[np.ndarray, "2 Z Y X"], axis: int, across: float, count: int) -> np.ndarray:
    """Means over `count` equal parts of an edge `across` voxels long, in whose middle the voxels are.

    Optical depths along the axis stay; absorbance is the mean over what is there to absorb.
    """
    attenuation = np.moveaxis(values[0], axis - 1, 0)
    absorbed = attenuation * np.moveaxis(values[1], axis - 1, 0)
    made = np.zeros((2, count, *attenuation.shape[1:]), np.float32)
    first = (across - len(attenuation)) / 2.0  # where the voxels begin
    for k in range(count):
        low, high = (np.array([k, k + 1]) * across / count - first).clip(0, len(attenuation))
        for index in range(int(low), int(np.ceil(high))):
            share = np.float32((min(high, index + 1) - max(low, index)) * count / across)
            made[0, k] += share * attenuation[index]
            made[1, k] += share * absorbed[index]
    made[1] = np.divide(made[1], made[0], out=np.zeros_like(made[1]), where=made[0] > 0).clip(0.0, 1.0)
    return np.moveaxis(made, 1, axis)


def _npz(path: Path) -> _Found:
    with np.load(path, allow_pickle=False) as file:
        missing = {"attenuation", "absorbance", "spacing_xyz"} - set(file.files)
        if missing:
            raise VolumeFileError(f"{path}: holds no {', '.join(sorted(missing))}; tools/export_voxels.py writes them")
        for name in ("attenuation", "absorbance"):  # from the header, before a small file fills the memory
            _check_shape(path, _npy_shape(file, name))
        x, y, z = (float(step) for step in file["spacing_xyz"])
        attenuation, absorbance = (file[name][:, ::-1].transpose(1, 0, 2) for name in ("attenuation", "absorbance"))
    return _Found(attenuation, absorbance, (x, z, y))


def _npy_shape(file: Any, name: str) -> tuple[int, ...]:
    formats = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with file.zip.open(f"{name}.npy") as member:
        return formats[np.lib.format.read_magic(member)](member)[0]


def _nrrd(path: Path) -> _Found:
    nrrd = _library("nrrd", path, "pynrrd")
    with path.open("rb") as file:
        header = nrrd.read_header(file)
        if {"data file", "datafile"} & {str(key).lower() for key in header}:
            raise VolumeFileError(f"{path}: its voxels lie in another file; write both into one .nrrd")
    if len(header["sizes"]) == 3:
        _check_shape(path, header["sizes"].tolist())
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
    shape = tuple(image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    _check_shape(path, shape)
    data = np.asarray(image.dataobj, np.float32).reshape(shape)
    return _turned(data, np.diag([-1.0, -1.0, 1.0]) @ image.affine[:3, :3])


def _mrc(path: Path) -> _Found:
    mrcfile = _library("mrcfile", path)
    with mrcfile.open(str(path), permissive=False, header_only=True) as mrc:
        _check_shape(path, [int(mrc.header[name]) for name in ("nx", "ny", "nz")])
    with mrcfile.open(str(path), permissive=False) as mrc:
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
