"""A package that knows mnist3d, and that mnist3d does not know: a backend, an objective, ways to get each wrong."""

from .beads import Beads as Beads
from .beads import Bowl as Bowl
from .smoothness import TotalVariation as TotalVariation
