"""Sculpt a 3D volume out of 2D pictures.

from mnist3d import AbsorptionRenderer, VoxelGrid, euler_matrix, load_run
"""

from typing import TYPE_CHECKING, Any

from .geometry import euler_matrix, sample_rotations, turntable
from .rendering import AbsorptionRenderer
from .volumes import HashGrid, VMGrid, Volume, VoxelGrid

if TYPE_CHECKING:
    from .runs.loading import load_run

__all__ = [
    "AbsorptionRenderer",
    "HashGrid",
    "VMGrid",
    "Volume",
    "VoxelGrid",
    "euler_matrix",
    "load_run",
    "sample_rotations",
    "turntable",
]


def __getattr__(name: str) -> Any:
    """`load_run`, with all that a configuration needs, when it is first asked for: PEP 562."""
    if name == "load_run":
        from .runs.loading import load_run

        return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
