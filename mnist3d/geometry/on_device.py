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
    for, so a training can use what a page in `torch.inference_mode()` asked for before. Nor is anything kept that has
    no numbers: where torch only works out shapes (`FakeTensorMode`, and so `torch.export`), all is made anew.

    Args:
        make: the function; it returns a tensor, or a tuple of them. Its arguments can be hashed.
    """

    def fresh(*arguments: Arguments.args, **options: Arguments.kwargs) -> Constants:
        with torch.inference_mode(False), torch.no_grad():
            return make(*arguments, **options)

    kept: Callable[Arguments, Constants] = functools.lru_cache(MOST_KEPT)(fresh)  # pyright: ignore[reportAssignmentType] - arguments that can be hashed

    @functools.wraps(make)
    def made(*arguments: Arguments.args, **options: Arguments.kwargs) -> Constants:
        without_numbers = torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None
        return (fresh if without_numbers else kept)(*arguments, **options)

    return made


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
