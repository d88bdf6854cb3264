"""Points that follow a density and keep their distance: blue noise, by throwing darts.

Where the density is high the points are near each other, and nowhere nearer than asked for.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from ..storage import require

# A point keeps off others by (FILLING / density)^(1/3). Darts that are thrown for ever fill space to .73 (spheres of
# that diameter then take .38 of it: random sequential addition, Torquato, "Random Heterogeneous Materials", 2002), and
# come to .55 within a few throws a point.
FILLING = 0.55
THROWS = 24  # darts for each point that is asked for; more find next to no room
FIRST_THROW = 256


def blue_noise(
    density: Float[np.ndarray, "Z Y X"],
    count: int,
    least: float,
    seed: int,
    progress: Callable[[int], object] | None = None,
) -> Float[np.ndarray, "P 3"]:
    """Points in the unit ball, in proportion to a density.

    Args:
        density: of a grid that fills [-1, 1]^3, linear between its voxels' centres; not negative, not 0 everywhere.
        count: points that are wanted.
        least: distance that no two points fall below, world units.
        seed: of the random numbers.
        progress: is told, from time to time, how many points have their place.

    Returns:
        World points, xyz, whose distances hold after the rounding to float32. Fewer than `count` where no more fit.
    """
    trees = require("scipy.spatial", "points", "scipy")
    random = np.random.default_rng(seed)
    cumulated = np.cumsum(density, dtype=np.float64)
    kept = np.empty((0, 3), np.float32)
    for number in _throws(count):
        thrown, apart = _darts(density, cumulated, number, count, random)
        apart = np.maximum(apart, least)
        if len(kept):
            far = trees.cKDTree(kept).query(thrown, distance_upper_bound=float(apart.max(initial=0.0)))[0] >= apart
            thrown, apart = thrown[far], apart[far]
        thrown = _apart_from_each_other(thrown, apart, trees)
        kept = np.concatenate([kept, thrown])[:count]
        if progress is not None:
            progress(len(kept))
        if len(kept) == count:
            break
    return kept


def _throws(count: int) -> Iterator[int]:
    """How many darts at a time: few at first, as they are compared with each other one by one."""
    thrown = 0
    while thrown < THROWS * count:
        number = int(min(max(FIRST_THROW, thrown // 4), max(FIRST_THROW, count)))
        thrown += number
        yield number


def _darts(
    density: Float[np.ndarray, "Z Y X"],
    cumulated: Float[np.ndarray, " N"],
    number: int,
    count: int,
    random: np.random.Generator,
) -> tuple[Float[np.ndarray, "D 3"], Float[np.ndarray, " D"]]:
    """Random places by the density, and how far each keeps off others; those beyond the ball are dropped."""
    shape = np.array(density.shape)
    voxel = np.searchsorted(cumulated, random.random(number) * cumulated[-1], side="right")
    index = np.stack(np.unravel_index(np.minimum(voxel, density.size - 1), density.shape), axis=1)
    # The difference of two uniform numbers is a triangle two voxels wide: linear interpolation, as a density.
    place = index + random.random((number, 3)) - random.random((number, 3))
    world = ((2.0 * place + 1.0) / shape - 1.0)[:, ::-1].astype(np.float32)
    there = density.ravel()[np.minimum(voxel, density.size - 1)] / cumulated[-1] * (density.size / 8.0)
    apart = np.cbrt(FILLING / np.maximum(count * there, np.finfo(np.float64).tiny))
    inside = np.square(world.astype(np.float64)).sum(axis=1) <= 1.0
    return world[inside], apart[inside]


def _apart_from_each_other(
    points: Float[np.ndarray, "D 3"], apart: Float[np.ndarray, " D"], trees: Any
) -> Float[np.ndarray, "_ 3"]:
    """Without those that are too near to their nearest earlier one, until there are none."""
    while len(points) > 1:
        distance, nearest = trees.cKDTree(points).query(points, k=2)
        order = np.arange(len(points))
        # Of two points at the same place, each may be told that it is its own nearest.
        other = np.where(nearest[:, 0] == order, nearest[:, 1], nearest[:, 0])
        late = (distance[:, 1] < apart) & (other < order)
        if not late.any():
            break
        points, apart = points[~late], apart[~late]
    return points
