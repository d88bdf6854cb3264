"""Contract checks that authors of volumes, kernels and objectives import into their own tests.

They raise AssertionError with the case, the quantity, the error found and the error allowed; they return nothing and
need no test framework.
"""

from .kernels import check_absorption_kernel as check_absorption_kernel
from .kernels import random_rotations as random_rotations
from .volumes import check_volume as check_volume
