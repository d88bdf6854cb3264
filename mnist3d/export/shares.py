"""How far an export is: a number and a word for who watches, part of the work by part."""

from collections.abc import Callable

Tell = Callable[[float, str], object]
"""Is handed the share that is done, [0, 1], and what is done now."""


def silent(share: float, doing: str) -> None:
    """For when nobody watches."""


def part(tell: Tell, begin: float, end: float) -> Tell:
    """What a part of the work tells of itself, as a share of the whole.

    Args:
        tell: is told of the whole.
        begin: share that is done before the part.
        end: share that is done after it.
    """
    return lambda share, doing: tell(begin + (end - begin) * share, doing)
