"""Sculpt a 3D volume out of 2D pictures.

from mnist3d import VoxelGrid, AbsorptionRenderer, euler_matrix, load_run
"""

from typing import TYPE_CHECKING, Any

from .geometry.rotations import euler_matrix as euler_matrix
from .geometry.rotations import sample_rotations as sample_rotations
from .geometry.rotations import turntable as turntable
from .rendering.renderer import AbsorptionRenderer as AbsorptionRenderer
from .volumes import HashGrid as HashGrid
from .volumes import VMGrid as VMGrid
from .volumes import Volume as Volume
from .volumes import VoxelGrid as VoxelGrid

if TYPE_CHECKING:
    from .runs.loading import load_run as load_run


def __getattr__(name: str) -> Any:
    """`load_run`, with all that a configuration needs, when it is first asked for: PEP 562."""
    if name == "load_run":
        from .runs.loading import load_run

        return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
