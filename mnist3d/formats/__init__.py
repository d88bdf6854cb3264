"""A file format's reader and writer side by side.

What it is: one file a format, each by that format's own library, and the two tables of them. What it is not: it knows
no volume; arrays come from `read_voxels`, and `export` hands voxels to the writers.
"""

from .reading import READERS, read_voxels
from .voxel_array import Voxels, from_upright, upright, world_voxels
from .writing import VOXEL_FORMATS, VoxelFormat

__all__ = [
    "READERS",
    "VOXEL_FORMATS",
    "VoxelFormat",
    "Voxels",
    "from_upright",
    "read_voxels",
    "upright",
    "world_voxels",
]
