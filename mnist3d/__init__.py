"""Sculpt a 3D volume out of 2D pictures.

from mnist3d import VoxelGrid, AbsorptionRenderer, euler_matrix, load_run
"""

from .config import load_run as load_run
from .poses import euler_matrix as euler_matrix
from .poses import sample_rotations as sample_rotations
from .poses import turntable as turntable
from .renderer import AbsorptionRenderer as AbsorptionRenderer
from .volumes import HashGrid as HashGrid
from .volumes import Volume as Volume
from .volumes import VoxelGrid as VoxelGrid
