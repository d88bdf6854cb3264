"""Volumes whose axes run anywhere in space -> voxels along the world's axes.

Mirrored and permuted axes are turned without touching a value; oblique and sheared ones are resampled, later: only when
it has been looked at whether the values are finite and not negative. A format's reader finds the directions; here they
are obeyed.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch.nn.functional import grid_sample

from ..errors import VolumeFileError
from ..geometry.grids import MAX_RESOLUTION
from .voxel_array import Voxels, check_growth, file_voxels, from_upright, upright_xyz

STRAIGHT = 0.5  # of a voxel, at the corner that is off farthest: no value can then belong to another voxel
FLAT = 1e-3  # of the unit cube's volume: three directions that span less lie in a plane
ROUNDING = 1e-6  # of a voxel, in the number of them that fill an edge


def oriented_voxels(path: Path, channels: Sequence[np.ndarray], directions: Float[np.ndarray, "3 3"]) -> Voxels:
    """Voxels that lie where the file says, in the world's axes; or oblique, for `straightened`.

    Each axis of the data becomes that axis of space that it runs along most, so that the sum of the directions' parts
    along them is the largest; values stay as they are. Where some voxel would then be off by more than half a voxel,
    the axes are oblique or sheared.

    Args:
        path: for the message.
        channels: attenuation and, where the file tells it, absorbance, each indexed by the file's three axes.
        directions: a column an axis: the step along it, in x right, y away, z up; patient space is left, posterior,
            superior.

    Raises:
        VolumeFileError: the directions lie in a plane.
    """
    steps = np.linalg.norm(directions, axis=0)
    if not (np.isfinite(steps).all() and (steps > 0.0).all() and abs(np.linalg.det(directions / steps)) > FLAT):
        rows = "; ".join(" ".join(f"{value:g}" for value in column) for column in directions.T)
        raise VolumeFileError(f"{path}: its axes' directions are degenerate ({rows}); must span three dimensions")
    for channel in channels:
        if channel.shape != channels[0].shape:
            raise VolumeFileError(f"{path}: absorbance {channel.shape} does not fit attenuation {channels[0].shape}")
    channels = [np.asarray(channel, np.float32) for channel in channels]
    share = np.abs(directions / steps)
    order = max(permutations(range(3)), key=lambda axes: share[range(3), axes].sum())
    signs = np.where(directions[range(3), order] < 0.0, -1.0, 1.0)
    straight = np.zeros((3, 3))
    straight[range(3), order] = signs * steps[list(order)]
    if _largest_shift(directions - straight, channels[0].shape) > STRAIGHT * steps.min():
        return replace(file_voxels(path, channels, (1.0, 1.0, 1.0)), oblique=np.asarray(directions, float))
    flipped = tuple(axis for axis in range(3) if signs[axis] < 0.0)
    found = [np.flip(channel.transpose(order), flipped).transpose(2, 1, 0) for channel in channels]
    return file_voxels(path, [from_upright(each) for each in found], upright_xyz(steps[list(order)].tolist()))


def _largest_shift(difference: Float[np.ndarray, "3 3"], shape: Sequence[int]) -> float:
    """By how much a corner's voxel lies off, the middle of the volume being in its place."""
    corners = np.array(list(product((-0.5, 0.5), repeat=3))) * (np.array(shape) - 1)
    return float(np.linalg.norm(corners @ difference.T, axis=1).max())


def straightened(path: Path, voxels: Voxels) -> Voxels:
    """Oblique voxels in the world's axes; others as they are.

    The values are interpolated linearly onto straight axes, with cubes as long as the shortest step, in the box around
    the volume (coarser where that had more than 1024 an edge); outside of it is 0. Absorbance is weighted by
    attenuation, as in `averaged`.

    Args:
        path: for messages.
        voxels: of `oriented_voxels`, all values finite.
    """
    if (directions := voxels.oblique) is None:
        return voxels
    shape = np.array(voxels.shape)
    edges = np.abs(directions) @ shape  # of the box around it, along x, y, z
    step = max(float(np.linalg.norm(directions, axis=0).min()), float(edges.max()) / MAX_RESOLUTION)
    counts = np.minimum(np.maximum(np.ceil(edges / step - ROUNDING), 1), MAX_RESOLUTION).astype(int)
    x, y, z = (torch.arange(n, dtype=torch.float64).sub((n - 1) / 2.0).mul(step) for n in counts.tolist())
    # In torch's coordinates the volume's edges are -1 and 1, and its last axis comes first.
    to_data = torch.from_numpy(2.0 * np.linalg.inv(directions) / shape[:, None]).flip(0)
    check_growth(path, voxels.shape, counts.tolist(), "the straight box around it")
    data = torch.from_numpy(_weighted(voxels))[None]
    right, away, up = counts.tolist()
    values: np.ndarray = np.empty((1 + voxels.tells_absorbance, away, up, right), np.float32)
    across = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1) @ to_data[:, [1, 0]].T
    for layer, height in enumerate(z):
        places = (across + height * to_data[:, 2]).float()[None, None]
        attenuation, absorbed, absorbance = grid_sample(data, places, align_corners=False)[0, :, 0].numpy()
        np.divide(absorbed, attenuation, out=absorbance, where=attenuation > 0.0)
        values[0, :, up - 1 - layer] = attenuation  # as `from_upright` has it
        values[1:, :, up - 1 - layer] = absorbance.clip(0.0, 1.0)
    x, y, z = (step * n for n in values.shape[:0:-1])
    return Voxels(values, (x, y, z))


def _weighted(voxels: Voxels) -> Float[np.ndarray, "3 Z Y X"]:
    """Attenuation, what of it is lost, and absorbance."""
    data: np.ndarray = np.empty((3, *voxels.shape), np.float32)
    data[0], data[2] = voxels.attenuation, voxels.absorbance
    np.multiply(data[0], data[2], out=data[1])
    return data
