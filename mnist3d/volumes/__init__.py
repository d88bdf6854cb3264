"""The fields one can train.

`Field` is what a renderer asks, `Volume` is a field that can be trained and saved; each backend has one file.
"""

from .baking import BakedField
from .base import Field, Volume
from .files import OWN_VOLUMES, class_path, load_volume, read_description, volume_bytes
from .fourier_mlp import FourierMLP
from .hash_grid import HashGrid
from .sparse_grid import SparseGrid
from .triplane import TriPlane
from .vm_grid import VMGrid
from .voxel_grid import VoxelGrid

__all__ = [
    "OWN_VOLUMES",
    "BakedField",
    "Field",
    "FourierMLP",
    "HashGrid",
    "SparseGrid",
    "TriPlane",
    "VMGrid",
    "Volume",
    "VoxelGrid",
    "class_path",
    "load_volume",
    "read_description",
    "volume_bytes",
]
