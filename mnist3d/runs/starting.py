"""What a run begins with instead of noise: `--start_from`, voxels of any program or a volume of the run's own class."""

from pathlib import Path

import torch

from ..errors import ConfigError, VolumeFileError
from ..formats.picking import split_pick
from ..formats.reading import read_voxels
from ..formats.values import with_option
from ..invocation import to_type
from ..storage.run_directory import RunDirectory
from ..volumes import SparseGrid
from ..volumes.base import SUFFIX, Volume, class_path
from ..volumes.files import load_volume
from ..volumes.legacy_3dmnist import SUFFIXES
from ..volumes.same_class import take_weights

OPAQUE = 4.0  # optical depth of one voxel, of which a view shows 98 % as one colour


def start_from(volume: Volume, path: str) -> list[str]:
    """Let a volume begin with the voxels of a file, or with the weights of a volume of its class.

    Args:
        volume: takes them.
        path: a voxel file; what is picked from it and done with its values stands after a #. Or a volume file, or a
            run directory.

    Returns:
        What the user should know of it, a line each.

    Raises:
        ConfigError: the file cannot be read, this kind of volume cannot be made of voxels, or the file holds a volume
            of another class or of other arguments.
    """
    try:
        found = _volume_file(path)
        if found is not None:
            _take_volume(volume, found)
            return []
        grid = torch.from_numpy(read_voxels(path))
        volume.take_voxels(grid)
    except VolumeFileError as error:
        raise ConfigError(f"start_from={error}") from None
    except ValueError as error:
        raise ConfigError(f"start_from={path}: {' '.join(str(error).split())}") from None
    filled = grid[0][grid[0] > 0.0]
    opaque = int((filled * 2.0 / max(grid.shape[1:]) > OPAQUE).sum())
    if 2 * opaque <= len(filled):
        return []
    return [
        f"start_from: {opaque:,} of its {len(filled):,} voxels > 0 are opaque, so the views begin as a silhouette; "
        f'scale the values: --start_from "{with_option(path, "percentile", 99)}"'
    ]


def _volume_file(given: str) -> Path | None:
    """The volume file that was meant, or None for voxels."""
    path, _ = split_pick(given)
    if path.is_dir():
        return RunDirectory(path).volume_path
    return path if path.name.lower().endswith((SUFFIX, *SUFFIXES)) else None


def _take_volume(volume: Volume, path: Path) -> None:
    """Its weights, if it is of the same class; of a `SparseGrid` no more blocks than it may keep.

    Raises:
        VolumeFileError: missing or damaged, or of a class that the run does not name.
        ValueError: of another class, or of other arguments.
    """
    other = load_volume(path, trusted=[type(volume)])
    if type(other) is not type(volume):
        wanted = type(volume).__name__ if class_path(type(volume)).startswith("mnist3d.") else class_path(type(volume))
        fitted = Path(f"converted{SUFFIX}")
        typed = to_type("convert", path, "--volume", wanted, "--output", fitted)
        raise ValueError(
            f"holds a {type(other).__name__}, and the run's volume is a {type(volume).__name__}; fit one to it first: "
            f"{typed}, and give --start_from {fitted}"
        )
    take_weights(volume, other)
    infinite = any(bool(weight.isinf().any()) for weight in volume.parameters())
    grid = other.dense() if infinite else None
    if grid is not None:
        volume.take_voxels(grid)  # an infinite weight gets no gradient
    elif isinstance(volume, SparseGrid):
        volume.keep_to_bound()
