"""Any volume that a command is given, as a cube of attenuation: a run, a volume file, or another tool's voxel file."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..formats.picking import split_pick
from ..formats.reading import READERS, read_voxels
from ..volumes.voxel_grid import VoxelGrid
from .tool_parser import open_sculpture

FIELD_RESOLUTION = 64  # voxels along the edge for a volume that is no grid


def any_volume(given: str, volume: str | None = None) -> Float[Tensor, "N N N"]:
    """The attenuation of what was given; absorbance is left out.

    A voxel file that is a cube along the world's axes is taken as it is, negative values too, as half-maps have them.
    A run's volume is sampled in a cube.

    Args:
        given: a run, its name under `runs/`, a volume file, or a voxel file, with what is picked behind #.
        volume: class path that the user trusts, or None.

    Raises:
        UserError: as the readers.
    """
    path, pick = split_pick(given)
    suffix = next((suffix for suffix in READERS if path.name.lower().endswith(suffix)), None)
    if suffix is None or path.is_dir():
        return _of_sculpture(given, volume)
    if path.is_file() and not pick.values:
        signed = _signed(path, given)
        if signed is not None:
            return torch.from_numpy(np.ascontiguousarray(signed))
    return _in_a_cube(torch.from_numpy(read_voxels(given)[0]))


def _signed(path: Path, given: str) -> Float[np.ndarray, "N N N"] | None:
    """A cube along the world's axes with its negative values, per world unit; None for anything else."""
    try:
        found = READERS[next(suffix for suffix in READERS if path.name.lower().endswith(suffix))](
            path, split_pick(given)[1]
        )
    except Exception:  # said by `read_voxels`, in its words
        return None
    values = found.attenuation
    edges = np.array(found.extent)
    cube = found.oblique is None and len(set(values.shape)) == 1 and bool((edges > 0.999 * edges.max()).all())
    if not cube or not float(values.min()) < 0.0:
        return None
    with np.errstate(over="ignore"):  # beyond float32 is infinity, and said by `read_voxels` too
        scaled = values * np.float32(found.scale)
    return scaled if bool(np.isfinite(scaled).all()) else None


def _of_sculpture(given: str, volume: str | None) -> Float[Tensor, "N N N"]:
    field = open_sculpture(given, volume).volume
    grid = field.dense()
    if grid is not None:
        return _in_a_cube(grid[0].detach().float().cpu())
    return VoxelGrid.from_field(field, FIELD_RESOLUTION).dense()[0].detach()


def _in_a_cube(grid: Float[Tensor, "Z Y X"]) -> Float[Tensor, "N N N"]:
    """The grid with as many voxels along each edge as along its longest."""
    if len(set(grid.shape)) == 1:
        return grid
    return VoxelGrid.from_field(VoxelGrid.from_array(grid), max(grid.shape)).dense()[0].detach()
