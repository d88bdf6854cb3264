"""Volumes: the abstract class and its backends."""

from ..errors import VolumeFileError as VolumeFileError
from .base import Field as Field
from .base import Volume as Volume
from .files import OWN_VOLUMES as OWN_VOLUMES
from .files import class_path as class_path
from .files import load_volume as load_volume
from .files import read_description as read_description
from .files import volume_bytes as volume_bytes
from .hash_grid import HashGrid as HashGrid
from .vm_grid import VMGrid as VMGrid
from .voxel_grid import VoxelGrid as VoxelGrid
