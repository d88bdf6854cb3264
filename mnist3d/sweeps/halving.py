"""Which run goes next: asynchronous successive halving, of plain numbers.

A run is compared with the others at rungs, which are shares of its length. No run waits for a rung to be full: as soon
as one is among the upper 1/eta of those that have reached a rung, it goes on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

State = Literal["waiting", "running", "paused", "done", "dropped", "failed"]
TO_COME: tuple[State, ...] = ("waiting", "running")


@dataclass
class Standing:
    """Where a run stands.

    Args:
        state: waiting for its turn, running, paused at a rung, done, dropped (its score was too low), or failed.
        scores: at each rung that it has passed; None where there is none.
    """

    state: State = "waiting"
    scores: list[float | None] = field(default_factory=list)


def next_run(runs: Sequence[Standing], rungs: int, eta: float) -> int | None:
    """The run that a free place takes.

    First one that was interrupted, then one to promote at the highest rung that has any, then a new one.

    Args:
        runs: all, in the order of the plan.
        rungs: how many there are below the end.
        eta: the upper 1/eta go on.

    Returns:
        The place in `runs`; None where nothing can begin now.

    Source:
        Li et al. 2020, algorithm 2, `get_job`; where nobody can reach a rung any more, at least one goes on.
    """
    interrupted = [k for k, run in enumerate(runs) if run.state == "waiting" and run.scores]
    if interrupted:
        return interrupted[0]
    chosen, more = None, False  # whether more runs may still reach the rung
    for rung in range(rungs):
        coming = any(run.state in TO_COME and len(run.scores) == rung for run in runs)
        best = _to_promote(runs, rung, eta, more or coming)
        # What can go on here may reach the next rung too; the highest rung that has any comes first.
        more = more or coming or best is not None
        chosen = chosen if best is None else best
    return chosen if chosen is not None else next((k for k, run in enumerate(runs) if run.state == "waiting"), None)


def _to_promote(runs: Sequence[Standing], rung: int, eta: float, more: bool) -> int | None:
    """The best run that is paused at a rung and among the upper 1/eta there."""
    passed = [k for k, run in enumerate(runs) if len(run.scores) > rung]
    passed.sort(key=lambda k: (-_rank(runs[k].scores[rung]), k))
    most = math.floor(len(passed) / eta)
    for k in passed[: most if more else max(1, most)]:
        if runs[k].state == "paused" and len(runs[k].scores) == rung + 1:
            return k
    return None


def best_run(runs: Sequence[Standing]) -> int | None:
    """The complete run with the best last score; None where there is none."""
    done = [k for k, run in enumerate(runs) if run.state == "done" and run.scores and run.scores[-1] is not None]
    return min(done, key=lambda k: (-_rank(runs[k].scores[-1]), k), default=None)


def _rank(score: float | None) -> float:
    return -math.inf if score is None or math.isnan(score) else score
