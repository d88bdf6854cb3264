"""The reasons why a volume moves, one file each.

What it is: the base class that a reason of somebody else's derives from, our own, and the list that a run is built
from. What it is not: the trainer, which knows none of them by name.
"""

from .base import Batch, Objective
from .build import build_objectives

__all__ = ["Batch", "Objective", "build_objectives"]
