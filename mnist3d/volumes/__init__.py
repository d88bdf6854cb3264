"""The fields one can train.

`Field` is what a renderer asks, `Volume` is a field that can be trained and saved; each backend has one file.
"""

from .base import Field, Volume
from .files import OWN_VOLUMES, class_path, load_volume, read_description, volume_bytes
from .hash_grid import HashGrid
from .vm_grid import VMGrid
from .voxel_grid import VoxelGrid

__all__ = [
    "OWN_VOLUMES",
    "Field",
    "HashGrid",
    "VMGrid",
    "Volume",
    "VoxelGrid",
    "class_path",
    "load_volume",
    "read_description",
    "volume_bytes",
]
