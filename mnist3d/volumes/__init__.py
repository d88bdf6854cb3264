"""The fields one can train.

What it is: `Field`, which is what a renderer asks, `Volume`, which is a field that can be trained and saved, and one
file a backend. What it is not: it renders nothing and knows no loss.
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
