"""Rows computed a few at a time, of which nothing is kept for the gradient but the rows themselves."""

from collections.abc import Callable

import torch
from torch import Tensor


def in_parts(compute: Callable[..., tuple[Tensor, ...]], at_once: int | None, *rows: Tensor) -> tuple[Tensor, ...]:
    """What `compute` makes of all rows, from a few at a time; none may depend on another.

    What lies between rows and results is computed again when a gradient is asked for, one part at a time.

    Args:
        compute: takes as many rows of each tensor, and returns tensors of as many rows. With the same rows it must
            return the same again.
        at_once: rows in a part, >= 1; None, or as many as there are: all at once, and nothing is computed again.
        rows: one tensor or more, each (B, ...).

    Gradients:
        To the rows, and to whatever else `compute` uses; twice too. Equal to those of all at once up to rounding: sums
        over the rows are made part by part.

    Source:
        Chen, Xu, Zhang and Guestrin, "Training deep nets with sublinear memory cost" (2016).
    """
    if at_once is None or len(rows[0]) <= at_once:
        return compute(*rows)
    parts = zip(*(each.split(at_once) for each in rows), strict=True)
    found = [computed_again(compute, *part) for part in parts]
    return tuple(torch.cat(each) for each in zip(*found, strict=True))


def computed_again(compute: Callable[..., tuple[Tensor, ...]], *given: Tensor) -> tuple[Tensor, ...]:
    """What `compute` makes of tensors; it is asked once more for a gradient, as nothing between is kept for it."""
    if not torch.is_grad_enabled():
        return compute(*given)
    from torch.utils.checkpoint import checkpoint

    return checkpoint(compute, *given, use_reentrant=False)  # type: ignore[return-value]
