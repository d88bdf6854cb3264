"""NRRD, a file a channel; its detached header (.nhdr) is read too."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import VolumeFileError
from ..storage.optional import require
from .orientation import oriented_voxels
from .picking import COMPONENT, FRAME, SPACE, Pick, check_numbers, volume_index
from .voxel_array import UPRIGHT_AXES, Voxels, channel_files, layout, upright_xyz


def write_nrrd(voxels: Voxels, path: Path, description: dict[str, Any]) -> dict[str, Any]:
    """NRRD, a file a channel: VTK and ParaView misread several channels in one."""
    nrrd = require("nrrd", ".nrrd", "pynrrd")
    for channel, array, file in channel_files(voxels, path, ".nrrd"):
        header = {
            "space": "left-posterior-superior",
            "space directions": np.diag(upright_xyz(voxels.spacing)),
            "space origin": np.array(upright_xyz(voxels.origin)),
            "kinds": ["domain"] * 3,
            "encoding": "raw",
            "channel": channel,
            "mnist3d": json.dumps(description),
        }
        if voxels.unit == "mm":
            header["space units"] = ["mm"] * 3
        nrrd.write(str(file), np.ascontiguousarray(array), header, index_order="C")
    return layout(voxels, f"upright: {UPRIGHT_AXES}; stored x fastest; space left-posterior-superior")


# How each of NRRD's spaces is turned into left, posterior, superior. The axes of "3D-..." and "scanner-..." have no
# place in a patient: they are taken as x right, y away, z up, and in a left-handed space y comes nearer.
SPACES = {
    "left-posterior-superior": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "scanner-xyz": (1, 1, 1),
    "3d-right-handed": (1, 1, 1),
    "3d-left-handed": (1, -1, 1),
    "lps": (1, 1, 1),
    "ras": (-1, -1, 1),
    "las": (1, -1, 1),
}
IN_SPACE = {"domain", "space"}
VECTORS = ("vector", "color", "point", "normal", "gradient", "matrix", "quaternion")  # in the kinds of an axis


def read_nrrd(path: Path, pick: Pick) -> Voxels:
    """One channel, turned as its space and its directions say; .nhdr has its voxels in a file in the same folder.

    Source: teem's "Definition of NRRD File Format", sections on space, kinds and per-axis fields.
    """
    nrrd = require("nrrd", f"{path}: reading it", "pynrrd", error=VolumeFileError)
    with path.open("rb") as file:
        header = nrrd.read_header(file)
    _check_data_file(path, header)
    shape = [int(n) for n in header["sizes"]]
    directions, in_space = _directions(path, header, len(shape))
    kinds = [str(kind).lower() for kind in header.get("kinds", ["???"] * len(shape))]
    if "complex" in kinds:
        raise VolumeFileError(
            f"{path}: holds complex numbers; must be one real number a voxel: write their magnitude in the tool that "
            "made it"
        )
    roles = [
        SPACE if spatial else COMPONENT if any(word in kind for word in VECTORS) else FRAME
        for spatial, kind in zip(in_space, kinds, strict=True)
    ]
    index = volume_index(path, shape, roles, pick)
    data, _ = nrrd.read(str(path), index_order="F")
    check_numbers(path, data.dtype)
    return oriented_voxels(path, [data[index]], directions)


def _check_data_file(path: Path, header: dict[str, Any]) -> None:
    """A file that is somebody else's must not be read by a header's word: only one beside it, or below."""
    named = [value for key, value in header.items() if str(key).lower() in ("data file", "datafile")]
    if not named:
        return
    folder, name = path.parent.resolve(), str(named[0])
    if name.split()[:1] == ["LIST"] or "%" in name:
        raise VolumeFileError(f"{path}: its voxels lie in several files ({name}); write all into one .nrrd")
    data = (folder / name).resolve()
    if not data.is_relative_to(folder):
        raise VolumeFileError(f"{path}: its voxels lie in another folder ({name}); must be in the header's own")
    if not data.is_file():
        raise VolumeFileError(f"{path}: its voxels lie in {name}, which is not beside it")


def _directions(path: Path, header: dict[str, Any], axes: int) -> tuple[Float[np.ndarray, "3 N"], list[bool]]:
    """The step along each axis in space, a column each, and which of the file's axes those are."""
    space = str(header.get("space", "left-posterior-superior")).lower()
    if space not in SPACES:
        raise VolumeFileError(f"{path}: its space is {space}; must be one of {', '.join(SPACES)}")
    given = header.get("space directions")
    if given is not None:
        rows = [np.full(3, np.nan) if row is None else np.asarray(row, float) for row in given]
        in_space = [not np.isnan(row).any() for row in rows]  # `none` where an axis is not in space
        vectors = [row for row, spatial in zip(rows, in_space, strict=True) if spatial]
        if any(len(row) != 3 for row in vectors):
            raise VolumeFileError(f"{path}: its space has {len(vectors[0])} dimensions; must have 3")
        return np.diag(SPACES[space]) @ np.array(vectors).reshape(-1, 3).T, in_space
    kinds = [str(kind).lower() for kind in header.get("kinds", ())]
    in_space = [kind in IN_SPACE for kind in kinds] if axes > 3 and len(kinds) == axes else [True] * axes
    steps = np.array([step for step, spatial in zip(_steps(header, axes), in_space, strict=True) if spatial])
    steps = np.where(np.isfinite(steps) & (steps != 0.0), steps, 1.0)
    return np.diag(SPACES[space]) @ np.eye(3, len(steps)) * steps, in_space


def _steps(header: dict[str, Any], axes: int) -> Float[np.ndarray, " N"]:
    """The distance along each axis; of `axis mins` and `axis maxs` where it is not told."""
    if "spacings" in header:
        return np.asarray(header["spacings"], float)
    low, high = (header.get(f"axis {end}", header.get(f"axis{end}")) for end in ("mins", "maxs"))
    if low is None or high is None:
        return np.ones(axes)
    nodes = [str(each).lower() == "node" for each in header.get("centerings", ["cell"] * axes)]
    return (np.asarray(high, float) - np.asarray(low, float)) / (np.asarray(header["sizes"]) - np.array(nodes))
