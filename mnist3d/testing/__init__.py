"""Contract checks for authors of volumes, kernels, objectives.

Functions that authors call in tests of their own. They raise AssertionError with the case, the quantity, the error
found and the largest error accepted, return nothing and need no test framework.
"""

from .kernels import check_absorption_kernel, random_rotations
from .objectives import check_objective
from .volumes import check_volume

__all__ = ["check_absorption_kernel", "check_objective", "check_volume", "random_rotations"]
