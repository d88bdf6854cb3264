"""A package that knows mnist3d, and that mnist3d does not know: one backend, and ways to get one wrong."""

from .beads import Beads as Beads
from .beads import Bowl as Bowl
