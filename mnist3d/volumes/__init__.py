"""Volumes: the abstract class and its backends."""

from .base import Volume as Volume
from .voxel_grid import VoxelGrid as VoxelGrid
