"""The reasons why a volume moves, one file each.

The base class that an objective of your own derives from, our own objectives, and the list that a run is built from.
The trainer knows none of them by name.
"""

from .base import Batch, Objective
from .build import build_objectives

__all__ = ["Batch", "Objective", "build_objectives"]
