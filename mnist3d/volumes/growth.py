"""When a volume refines itself while it is trained: such arguments as `grow_at`, and the sizes that follow from them.

Checks and arithmetic; each volume refines itself.
"""

import math
from collections.abc import Sequence
from itertools import pairwise


def checked_growths(grow_at: Sequence[int | float] | None, finest: int) -> list[int | float]:
    """The times at which a grid doubles.

    Args:
        grow_at: ascending values of progress in (0, 1), or ascending steps from 1; None: never.
        finest: voxels along the longest edge at the end.

    Raises:
        ValueError: other values, or more doublings than `finest` has.
    """
    times = checked_times("grow_at", grow_at)
    if 2 ** len(times) > finest:
        raise ValueError(
            f"grow_at={grow_at}: {len(times)} doublings end at {finest} voxels only if they begin below 1; "
            f"must be at most {int(math.log2(finest))} times, or null"
        )
    return times


def checked_times(name: str, times: Sequence[int | float] | None) -> list[int | float]:
    """Ascending values of progress in (0, 1), or ascending steps from 1; None: none.

    Raises:
        ValueError: other values; it calls them `name`.
    """
    given = list(times or [])
    shares = all(0.0 < at < 1.0 for at in given)
    steps = all(1 <= at < math.inf and at == int(at) for at in given)
    if not (shares or steps) or any(late <= early for early, late in pairwise(given)):
        raise ValueError(f"{name}={times}: must be ascending progress > 0 and < 1, or ascending steps >= 1")
    return given


def still_to_come(times: Sequence[int | float], steps_done: int, progress: float) -> list[int | float]:
    """What of `times` lies ahead after so many steps and with this progress of the run."""
    return [at for at in times if at > (progress if at < 1 else steps_done)]


def coarser(size: int, growths_left: int) -> int:
    """Voxels along an edge that ends at `size`, with so many doublings to come; at least 1."""
    return max(1, round(size / 2**growths_left))
