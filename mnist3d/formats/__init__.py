"""A file format's reader and writer side by side.

One file a format or direction, with the formats' own libraries where these are safe on a stranger's file, and the two
tables of them. Arrays come from `read_voxels`; `export` hands voxels to the writers.
"""

from .reading import READERS, read_voxels
from .voxel_array import Voxels, from_upright, upright, world_length, world_voxels
from .writing import VOXEL_FORMATS, VoxelFormat

__all__ = [
    "READERS",
    "VOXEL_FORMATS",
    "VoxelFormat",
    "Voxels",
    "from_upright",
    "read_voxels",
    "upright",
    "world_length",
    "world_voxels",
]
