"""Small tensors on a device, without waiting for it: constants made once, and what was drawn on the CPU sent there."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

MOST_KEPT = 32  # of each constant: some sizes, on some devices
PINNED_FOR = frozenset({"cuda"})  # kinds of device that copy from pinned memory while the host goes on

Arguments = ParamSpec("Arguments")
Constants = TypeVar("Constants")


def made_once(make: Callable[Arguments, Constants]) -> Callable[Arguments, Constants]:
    """A function that makes constants of plain arguments, size, device and precision among them, kept for next time.

    What it returns is shared: it must not be written into. It holds no inference tensor, wherever it was first asked
    for, so a training can use what a page in `torch.inference_mode()` asked for before.

    Args:
        make: the function; it returns a tensor, or a tuple of them. Its arguments can be hashed.
    """

    @functools.lru_cache(maxsize=MOST_KEPT)
    def kept(*arguments: Arguments.args, **options: Arguments.kwargs) -> Constants:
        with torch.inference_mode(False), torch.no_grad():
            return make(*arguments, **options)

    return functools.update_wrapper(kept, make)  # pyright: ignore[reportReturnType] - arguments that can be hashed


def sent(drawn: Tensor, like: Tensor) -> Tensor:
    """A tensor of the CPU on another's device, in its own precision.

    The copy of pageable memory to a GPU would first wait for all that the GPU has still to do.

    Args:
        drawn: on the CPU.
        like: of the device.
    """
    if like.device.type in PINNED_FOR:
        return drawn.pin_memory().to(like.device, non_blocking=True)
    return drawn.to(like.device)
