"""Contract checks for authors of volumes, kernels, objectives.

What it is: functions that authors call in tests of their own. They raise AssertionError with the case, the quantity,
the error found and the error allowed, return nothing and need no test framework. What it is not: this package's own
tests.
"""

from .kernels import check_absorption_kernel, random_rotations
from .objectives import check_objective
from .volumes import check_volume

__all__ = ["check_absorption_kernel", "check_objective", "check_volume", "random_rotations"]
