"""How many blocks a run of a grid of blocks has at most, as far as that can be told before it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from ._sparse_blocks import blocks_in_ball
from ._sparse_choice import may_stay

KEPT = 0.4  # of the blocks in the ball by a pruning without a bound
MOST_FINER = 4**3  # blocks of a grid twice as fine that read a block: two along each axis and one on either side


class MostBlocks(NamedTuple):
    """At the moments of a run that take most memory."""

    in_a_step: int
    before_a_growth: int
    """Of the growth after a pruning at which most are there; 0 if there is none."""
    at_a_growth: int
    """All that read those before, of which it then chooses."""


def most_blocks(
    stages: Sequence[tuple[int, int, int]],
    grow_at: Sequence[int | float],
    prune_at: Sequence[int | float],
    keep_at_most: float | None,
) -> MostBlocks:
    """All in the ball until the first pruning, and a part of them afterwards.

    Args:
        stages: the grid's sizes, the last one first.
        grow_at, prune_at, keep_at_most: as of `SparseGrid`.
    """
    first = prune_at[0] if prune_at else math.inf
    # A growth at the time of the first pruning comes after it.
    to_come = sum(at >= first and (at < 1) == (first < 1) for at in grow_at)
    balls = [len(blocks_in_ball(size)) for size in stages[: to_come + 1]]
    kept = [
        round(KEPT * ball) if keep_at_most is None else min(ball, may_stay(size, keep_at_most))
        for ball, size in zip(balls, stages, strict=False)
    ]
    growths = [(before, min(MOST_FINER * before, ball)) for before, ball in zip(kept[1:], balls, strict=False)]
    before, then = max(growths, key=lambda counts: counts[1], default=(0, 0))
    return MostBlocks(max(balls[-1], kept[0] if to_come else 0), before, then)
