"""Rotations, cameras, grids.

Pure functions of angles, pixels and resolutions.
"""

from .cameras import camera_to_world, orthographic_rays
from .grids import grid_size, voxel_centres
from .rotations import (
    PoseOptions,
    as_rotations,
    euler_matrix,
    map_rotations,
    sample_rotations,
    sphere_weights,
    training_rotations,
    turntable,
    upright_matrix,
)

__all__ = [
    "PoseOptions",
    "as_rotations",
    "camera_to_world",
    "euler_matrix",
    "grid_size",
    "map_rotations",
    "orthographic_rays",
    "sample_rotations",
    "sphere_weights",
    "training_rotations",
    "turntable",
    "upright_matrix",
    "voxel_centres",
]
