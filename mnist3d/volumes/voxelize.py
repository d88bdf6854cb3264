"""Any volume -> a voxel grid."""

from collections.abc import Sequence
from functools import partial

import torch

from .base import Volume
from .resampling import ask, drawn, voxel_centres
from .sizes import grid_size
from .voxel_grid import VoxelGrid

POINTS_AT_ONCE = 2**16  # bounds the memory of a field with a network in it


@torch.no_grad()
def voxelize(volume: Volume, resolution: int | Sequence[int]) -> VoxelGrid:
    """A bare grid whose voxels hold the volume's attenuation and absorbance at their centres.

    No filter comes before the sampling. A voxel outside the unit ball that a view can still interpolate with (its
    centre less than a voxel's diagonal outside) holds what the volume says at the nearest point of the sphere;
    voxels farther out are empty.

    Args:
        volume: any backend; asked in the precision and on the device of its parameters, a part at a time.
        resolution: voxels along each edge, or along (Z, Y, X); 1 to 1024.

    Returns:
        A VoxelGrid on the CPU.

    Raises:
        ValueError: a resolution out of range, or a field that is not finite or out of its range.
    """
    size = grid_size(resolution)
    weight = next((weight for weight in volume.parameters() if weight.is_floating_point()), torch.zeros(()))
    centres = [voxel_centres(n) for n in size]
    diagonal = sum((2.0 / n) ** 2 for n in size) ** 0.5
    array = torch.zeros(2, size[0] * size[1] * size[2])
    was_training = volume.training
    volume.eval()
    try:
        # A grid is computed once, not once a part; a class with a forward of its own is asked that.
        asked = volume
        if isinstance(volume, VoxelGrid) and type(volume).forward is VoxelGrid.forward:
            asked = partial(ask, drawn(volume.dense()))
        for voxels in torch.arange(array.shape[1]).split(POINTS_AT_ONCE):
            k, j, i = torch.unravel_index(voxels, size)
            points = torch.stack([centres[2][i], centres[1][j], centres[0][k]], dim=-1)
            distance = points.norm(dim=-1)
            seen = distance < 1.0 + diagonal
            points = (points / distance.clamp_min(1.0)[:, None])[seen].to(weight)
            attenuation, absorbance = asked(points)
            array[0, voxels[seen]] = attenuation.float().cpu()
            array[1, voxels[seen]] = absorbance.float().cpu()
    finally:
        volume.train(was_training)
    return VoxelGrid.from_array(array.reshape(2, *size))
